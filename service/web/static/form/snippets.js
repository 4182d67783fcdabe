// The same job or sweep as a shell command and as Python code.
import { isSweep } from "./sweep-fields.js";

export function curl(text, document, { keys }) {
  const key = keys ? " -H 'Authorization: Bearer KEY'" : "";
  return `curl ${location.origin}/${
    isSweep(document) ? "sweeps" : "jobs"
  }${key} -H 'Content-Type: application/json' -d '${text.replaceAll("'", String.raw`'\''`)}'`;
}

export function python(spec, { keys }) {
  const key = keys ? ', key="KEY"' : "";
  const [name, call, printed] = isSweep(spec)
    ? ["sweep", "sweep", "sweep.best"]
    : ["job", "submit", "job.status, job.metrics"];
  return [
    "from tapeline import Client",
    "",
    `with Client("${location.origin}"${key}) as client:`,
    `    ${name} = client.${call}(${literal(spec, "    ")}).wait()`,
    `    print(${printed})`,
  ].join("\n");
}

function literal(value, indent) {
  const inner = `${indent}    `;
  if (Array.isArray(value)) {
    if (value.every((item) => typeof item !== "object" || item === null)) {
      return `[${value.map((item) => literal(item, "")).join(", ")}]`;
    }
    return `[\n${value.map((item) => `${inner}${literal(item, inner)},\n`).join("")}${indent}]`;
  }
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  if (Object.keys(value).length === 0) return "{}";
  return `{\n${
    Object.entries(value).map(([name, item]) => `${inner}${JSON.stringify(name)}: ${literal(item, inner)},\n`).join("")
  }${indent}}`;
}
