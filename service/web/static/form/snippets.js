// The same job or sweep as a shell command and as Python code.
import { isSweep } from "./sweep-fields.js";

export function curl(text, document, { keys }) {
  const key = keys ? " -H 'Authorization: Bearer KEY'" : "";
  return `curl ${location.origin}/${isSweep(document) ? "sweeps" : "jobs"}${key} -H 'Content-Type: application/json' -d '${text.replaceAll("'", String.raw`'\''`)}'`;
}

export function python(spec, { keys }) {
  const key = keys ? ', key="KEY"' : "";
  const [name, call, shown] = isSweep(spec) ? ["sweep", "sweep", "sweep.best"] : ["job", "submit", "job.status, job.metrics"];
  return `from tapeline import Client\n\nwith Client("${location.origin}"${key}) as client:\n    ${name} = client.${call}(${literal(spec, "    ")}).wait()\n    print(${shown})`;
}

function literal(part, indent) {
  const inner = `${indent}    `;
  if (Array.isArray(part)) {
    if (part.every((item) => typeof item !== "object" || item === null)) return `[${part.map((item) => literal(item, "")).join(", ")}]`;
    return `[\n${part.map((item) => `${inner}${literal(item, inner)},\n`).join("")}${indent}]`;
  }
  if (part === null) return "None";
  if (typeof part === "boolean") return part ? "True" : "False";
  if (typeof part !== "object") return JSON.stringify(part);
  if (Object.keys(part).length === 0) return "{}";
  return `{\n${Object.entries(part).map(([name, item]) => `${inner}${JSON.stringify(name)}: ${literal(item, inner)},\n`).join("")}${indent}}`;
}
