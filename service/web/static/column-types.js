// The field for the types of a table's columns: written as on the command line, COLUMN=TYPE, and sent as JSON.
import { $ } from "./dom.js";

const [field, sent] = [$("#types"), $("#upload [name=types]")];

// Entries are separated by commas; a name with a comma stands in quotation marks.
function read() {
  const entries = (field.value.match(/(?:"[^"]*"|[^,])+/g) ?? []).filter((entry) => entry.trim());
  const pairs = entries.map((entry) => (/^(.+)=([^=]+)$/.exec(entry) ?? ["", "", ""]).slice(1).map((part) => part.trim().replace(/^"(.*)"$/, "$1")));
  const wrong = pairs.findIndex((pair) => !pair.every(Boolean));
  sent.value = pairs.length && wrong < 0 ? JSON.stringify(Object.fromEntries(pairs)) : "";
  field.setCustomValidity(wrong < 0 ? "" : `${entries[wrong].trim()}: must be COLUMN=TYPE, such as age=number`);
}

field.addEventListener("input", read);
read(); // a browser may have restored what was in the field
