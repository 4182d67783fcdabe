// Names for jobs and sweeps that are created from another one.
import { call } from "../common/api.js";

// The next of first, first-2, first-3, ... that is not used in a list; by default, that of the jobs.
export async function distinctName(name, list = null) {
  const stem = name.replace(/-\d+$/, "");
  const { data } = await call(list ?? `/jobs?${new URLSearchParams({ q: stem, limit: 100 })}`);
  const used = new Set(data.map((item) => item.name));
  let number = 2;
  while (used.has(`${stem}-${number}`)) number += 1;
  return `${stem}-${number}`;
}
