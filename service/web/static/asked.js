// What the page shows, as its address says it: search, filters, order, groups and columns. A view can be shared by link.

const SINGLE = ["q", "kind", "name", "preset", "dataset", "spec", "parent", "sweep", "starred", "sort", "group"];
const SEVERAL = ["tag", "without", "status", "columns"];
const NEWEST = "-created_at";
const FILTERS = ["q", "kind", "name", "preset", "dataset", "spec", "parent", "sweep", "starred", "tag", "without", "status"];

export class Asked {
  constructor(address, defaultColumns) {
    const given = new URLSearchParams(address);
    for (const name of SINGLE) this[name] = given.get(name) ?? "";
    for (const name of SEVERAL) this[name] = given.getAll(name).join(",").split(",").filter(Boolean);
    this.sort ||= NEWEST;
    this.defaultColumns = defaultColumns;
    if (!this.columns.length) this.columns = [...defaultColumns];
  }

  get isFiltered() {
    return FILTERS.some((name) => this[name].length > 0);
  }

  // Whether a sweep is one row: in the order of time, and where no filter asks for some of its jobs.
  get foldsSweeps() {
    return !this.isFiltered && !this.group && this.sort.replace(/^-/, "") === "created_at";
  }

  get hasDefaultColumns() {
    return this.columns.join() === this.defaultColumns.join();
  }

  // The parameters of a request; those of a group are added.
  parameters(extra = {}, group = {}) {
    const found = new URLSearchParams();
    for (const name of FILTERS) {
      const value = this[name];
      if (Array.isArray(value)) value.forEach((item) => found.append(name, item));
      else if (value) found.set(name, value);
    }
    for (const [name, value] of Object.entries(group)) {
      if (SEVERAL.includes(name)) found.append(name, value);
      else found.set(name, value);
    }
    for (const [name, value] of Object.entries(extra)) found.set(name, value);
    return found;
  }

  list(extra = {}, group = {}) {
    const folded = this.foldsSweeps && !group.sweep && extra.format !== "csv" ? { one_per_sweep: true } : {};
    return `/jobs?${readable(this.parameters({ sort: this.sort, columns: this.columns.join(","), ...folded, ...extra }, group))}`;
  }

  groups(limit) {
    return `/jobs/groups?${readable(this.parameters({ by: this.group, columns: this.columns.join(","), limit }))}`;
  }

  // What stands in the address bar.
  get query() {
    const extra = {};
    if (this.sort !== NEWEST) extra.sort = this.sort;
    if (this.group) extra.group = this.group;
    if (!this.hasDefaultColumns) extra.columns = this.columns.join(",");
    return readable(this.parameters(extra));
  }
}

// Commas, colons and slashes mean nothing special in a query, and a person reads the address.
const readable = (parameters) => parameters.toString().replaceAll("%2C", ",").replaceAll("%3A", ":").replaceAll("%2F", "/");
