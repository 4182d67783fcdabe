// Names for jobs that are created from another one.
import { call } from "../api.js";

// first, first-2, first-3: the next name that no listed job has.
export async function distinctName(name) {
  const stem = name.replace(/-\d+$/, "");
  const { data } = await call(`/jobs?${new URLSearchParams({ q: stem, limit: 100 })}`);
  const taken = new Set(data.map((job) => job.name));
  let number = 2;
  while (taken.has(`${stem}-${number}`)) number += 1;
  return `${stem}-${number}`;
}
