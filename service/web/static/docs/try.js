// The request of one operation: built from a form, shown as a curl command, sent, and its response shown.
import { $, $$, bytes, h } from "../common/dom.js";

// A form's fields are its properties: one named "dataset" shadows the form's own.
export const data = (form, name) => form.getAttribute(`data-${name}`);

const MAX_SHOWN_CHARACTERS = 200_000; // displayed characters of a response; of a stream, the last ones
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export class Exchange {
  constructor(form) {
    this.form = form;
    this.abort = null;
    this.address = null; // object URL of a displayed image or file
  }

  fields(where) {
    return $$(`[data-in="${where}"]`, this.form).filter((
      field,
    ) => (field.type === "file" ? field.files.length : field.value !== ""));
  }

  path() {
    let path = data(this.form, "path");
    for (const field of this.fields("path")) {
      path = path.replace(`{${field.name}}`, encodeURIComponent(field.value.trim()));
    }
    const query = new URLSearchParams(this.fields("query").map((field) => [field.name, field.value]));
    return query.size ? `${path}?${query}` : path;
  }

  accepts() {
    return $("[data-in=accept]", this.form)?.value ?? data(this.form, "media").split(" ")[0] ?? "";
  }

  headers() {
    const headers = { Accept: this.accepts() || "*/*" };
    if (data(this.form, "body") === "application/json") headers["Content-Type"] = "application/json";
    for (const field of this.fields("header")) headers[field.name] = field.value;
    return headers;
  }

  body() {
    if (data(this.form, "body") === "multipart/form-data") {
      const form = new FormData();
      for (const field of this.fields("form")) {
        form.append(field.name, field.type === "file" ? field.files[0] : field.value);
      }
      return form;
    }
    return $("[name=body]", this.form)?.value;
  }

  curl() {
    const method = data(this.form, "method");
    const parts = ["curl"];
    if (method !== "GET") parts.push(`-X ${method}`);
    if (this.accepts() === "text/event-stream") parts.push("-N");
    if (/octet-stream|image|csv|ndjson/.test(this.accepts())) parts.push("-OJ");
    parts.push(quoted(location.origin + this.path()));
    if (data(this.form, "keys")) parts.push('-H "Authorization: Bearer $TAPELINE_KEY"');
    const { Accept: accept, ...rest } = this.headers();
    if (!["application/json", "*/*"].includes(accept)) rest.Accept = accept;
    for (const [name, value] of Object.entries(rest)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
    const body = this.body();
    if (body instanceof FormData) {
      for (const [name, value] of body) {
        parts.push(`-F ${quoted(value instanceof File ? `${name}=@${value.name}` : `${name}=${value}`)}`);
      }
    } else if (body) parts.push(`-d ${quoted(compact(body))}`);
    return parts.join(" ");
  }

  stop() {
    this.abort?.abort();
  }

  async send() {
    if (data(this.form, "media") === "text/html") {
      location.assign(this.path());
      return;
    }
    this.stop();
    const abort = (this.abort = new AbortController());
    const [send, stop, container] = ["[data-send]", "[data-stop]", "[data-answer]"].map((selector) =>
      $(selector, this.form)
    );
    send.disabled = true;
    stop.hidden = false;
    container.hidden = false;
    container.replaceChildren(h("p", { class: "muted" }, "Waiting for the response…"));
    if (this.address) URL.revokeObjectURL(this.address);
    const startedAt = performance.now();
    try {
      const response = await fetch(this.path(), {
        method: data(this.form, "method"),
        headers: this.headers(),
        body: this.body(),
        signal: abort.signal,
      });
      await this.show(response, container, startedAt);
    } catch (error) {
      const text = error.name === "AbortError" ? "Stopped." : "The service does not respond. Is it still running?";
      if (error.name === "AbortError" && container.children.length > 1) {
        container.append(h("p", { class: "muted" }, text));
      } else container.replaceChildren(h("p", { class: "note" }, text));
    } finally {
      if (this.abort === abort) {
        send.disabled = false;
        stop.hidden = true;
      }
    }
  }

  async show(response, container, startedAt) {
    const type = response.headers.get("Content-Type") ?? "";
    const status = h(
      "p",
      { class: `note ${response.ok ? "good" : "error"}` },
      h("strong", {}, `${response.status} ${response.statusText}`),
      ` in ${Math.round(performance.now() - startedAt)} ms`,
    );
    const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    container.replaceChildren(
      status,
      h("details", {}, h("summary", {}, "Headers"), h("pre", { tabindex: 0 }, headers)),
    );
    if (type.startsWith("text/event-stream")) {
      await this.showStream(response, container);
      return;
    }
    const content = await response.blob();
    status.append(`, ${bytes(content.size)}`);
    if (!content.size) return;
    if (type.startsWith("image/")) {
      this.address = URL.createObjectURL(content);
      container.append(h("img", { src: this.address, alt: "The response" }));
    } else if (/json|text\//.test(type) && !type.startsWith("text/csv")) {
      const text = await content.text();
      container.append(h("pre", { tabindex: 0 }, truncate(/json/.test(type) ? pretty(text) : text)));
    } else {
      if (/csv|ndjson/.test(type)) container.append(h("pre", { tabindex: 0 }, truncate(await content.text())));
      this.address = URL.createObjectURL(content);
      const name = /filename="?([^";]+)/.exec(response.headers.get("Content-Disposition") ?? "")?.[1] ?? "response";
      container.append(h("p", {}, h("a", { class: "button", href: this.address, download: name }, `Save ${name}`)));
    }
  }

  async showStream(response, container) {
    const output = h("pre", { tabindex: 0 });
    container.append(output);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
      output.textContent = (output.textContent + chunk.value).slice(-MAX_SHOWN_CHARACTERS);
      output.scrollTop = output.scrollHeight;
    }
    container.append(h("p", { class: "muted" }, "The stream has ended."));
  }
}

const truncate = (
  text,
) => (text.length > MAX_SHOWN_CHARACTERS
  ? `${text.slice(0, MAX_SHOWN_CHARACTERS)}\n… ${text.length - MAX_SHOWN_CHARACTERS} more characters`
  : text);

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function compact(text) {
  try {
    return JSON.stringify(JSON.parse(text));
  } catch {
    return text;
  }
}
