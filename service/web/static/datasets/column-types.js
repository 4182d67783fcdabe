// The field for the types of a table's columns: written as on the command line, COLUMN=TYPE, and sent as JSON.
import { $ } from "../common/dom.js";

const [field, submitted] = [$("#types"), $("#upload [name=types]")];

// Entries are separated by commas; a name that contains a comma is quoted.
function read() {
  const entries = (field.value.match(/(?:"[^"]*"|[^,])+/g) ?? []).filter((entry) => entry.trim());
  const pairs = entries.map((entry) => (/^(.+)=([^=]+)$/.exec(entry) ?? ["", "", ""]).slice(1).map((part) => part.trim().replace(/^"(.*)"$/, "$1")));
  const invalidIndex = pairs.findIndex((pair) => !pair.every(Boolean));
  submitted.value = pairs.length && invalidIndex < 0 ? JSON.stringify(Object.fromEntries(pairs)) : "";
  field.setCustomValidity(invalidIndex < 0 ? "" : `${entries[invalidIndex].trim()}: must be COLUMN=TYPE, such as age=number`);
}

field.addEventListener("input", read);
read(); // the browser may have restored an earlier value
