// The metrics of a job as columns, kept complete while epochs end.
import { call } from "../common/api.js";

export class Metrics {
  constructor(address, onchange) {
    this.address = address;
    this.onchange = onchange;
    this.table = null; // as returned by the service: { epochs, seconds, series, resources, best_epoch, findings }
    this.pending = [];
    this.changes = []; // of other fields; a table requested earlier may lack them
    this.reached = 0; // an epoch that has ended; a table requested earlier may lack it
  }

  // Applies a change to fields other than the epochs: change(table).
  amend(change) {
    if (this.loading) this.changes.push(change);
    if (!this.table) return;
    change(this.table);
    this.onchange();
  }

  // Epochs that end while the table is being loaded are appended to it.
  async load() {
    if (this.loading) return;
    this.loading = true;
    try {
      do {
        this.reached = 0;
        this.isStale = false;
        this.table = await call(this.address);
      } while (this.isStale || this.reached > (this.last ?? 0));
    } finally {
      this.loading = false;
    }
    for (const change of this.changes.splice(0)) change(this.table);
    this.take();
    this.onchange();
  }

  // Loads the table again; one that is being loaded is too old.
  reload() {
    this.isStale = true;
    this.load().catch(() => {});
  }

  // Loads the table again, unless it has this epoch.
  reach(epoch) {
    this.reached = Math.max(this.reached, epoch);
    if (this.table && epoch > (this.last ?? 0)) this.load().catch(() => {});
  }

  add(event) {
    this.pending.push(event);
    if (this.table && !this.loading) this.take();
    else this.load().catch(() => {});
  }

  take() {
    for (const event of this.pending.splice(0)) {
      const last = this.last ?? event.epoch - 1;
      if (event.epoch <= last) continue;
      if (event.epoch > last + 1) return void this.load().catch(() => {}); // an epoch was missed
      this.extend(event);
    }
    return this.onchange();
  }

  get last() {
    return this.table?.epochs.at(-1);
  }

  extend({ epoch, values, seconds, ...news }) {
    const { epochs, series, resources } = this.table;
    for (const name of Object.keys(values)) series[name] ??= epochs.map(() => null);
    epochs.push(epoch);
    this.table.seconds.push(seconds);
    for (const [name, column] of Object.entries(series)) column.push(values[name] ?? null);
    for (const [name, column] of Object.entries(resources)) column.push(news[name] ?? null);
  }

  // The values of a metric that are not null.
  definedValues(name) {
    return (this.table?.series[name] ?? []).filter((value) => value !== null);
  }
}
