// Names for jobs and sweeps that are created from another one.
import { call } from "../api.js";

// first, first-2, first-3: the next name that nothing in a list has; by default, no job.
export async function distinctName(name, list = null) {
  const stem = name.replace(/-\d+$/, "");
  const { data } = await call(list ?? `/jobs?${new URLSearchParams({ q: stem, limit: 100 })}`);
  const used = new Set(data.map((item) => item.name));
  let number = 2;
  while (used.has(`${stem}-${number}`)) number += 1;
  return `${stem}-${number}`;
}
