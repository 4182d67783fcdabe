// The state of the list in the URL: search, filters, order, groups and columns. A view can be shared by link.

const SINGLE_VALUED = [
  "q",
  "kind",
  "name",
  "preset",
  "dataset",
  "spec",
  "parent",
  "sweep",
  "starred",
  "owner",
  "sort",
  "group",
];
const MULTI_VALUED = ["tag", "without", "status", "columns"];
const NEWEST = "-created_at";
const FILTERS = [
  "q",
  "kind",
  "name",
  "preset",
  "dataset",
  "spec",
  "parent",
  "sweep",
  "starred",
  "tag",
  "without",
  "status",
];

export class UrlState {
  constructor(address, defaultColumns) {
    const parsed = new URLSearchParams(address);
    for (const name of SINGLE_VALUED) this[name] = parsed.get(name) ?? "";
    for (const name of MULTI_VALUED) this[name] = parsed.getAll(name).join(",").split(",").filter(Boolean);
    this.sort ||= NEWEST;
    this.defaultColumns = defaultColumns;
    if (!this.columns.length) this.columns = [...defaultColumns];
  }

  get isFiltered() {
    return FILTERS.some((name) => this[name].length > 0);
  }

  // Whether each sweep is collapsed to one row: only when sorted by time, and without a filter, which could select
  // some of its jobs.
  get collapsesSweeps() {
    return !this.isFiltered && !this.group && this.sort.replace(/^-/, "") === "created_at";
  }

  get hasDefaultColumns() {
    return this.columns.join() === this.defaultColumns.join();
  }

  // The parameters of a request, including those of a group.
  parameters(extra = {}, group = {}) {
    const result = new URLSearchParams();
    if (this.owner) result.set("owner", this.owner);
    for (const name of FILTERS) {
      const value = this[name];
      if (Array.isArray(value)) value.forEach((item) => result.append(name, item));
      else if (value) result.set(name, value);
    }
    for (const [name, value] of Object.entries(group)) {
      if (MULTI_VALUED.includes(name)) result.append(name, value);
      else result.set(name, value);
    }
    for (const [name, value] of Object.entries(extra)) result.set(name, value);
    return result;
  }

  list(extra = {}, group = {}) {
    const collapsed = this.collapsesSweeps && !group.sweep && extra.format !== "csv" ? { one_per_sweep: true } : {};
    return `/jobs?${
      readable(this.parameters({ sort: this.sort, columns: this.columns.join(","), ...collapsed, ...extra }, group))
    }`;
  }

  groups(limit) {
    return `/jobs/groups?${readable(this.parameters({ by: this.group, columns: this.columns.join(","), limit }))}`;
  }

  // The query in the address bar.
  get query() {
    const extra = {};
    if (this.sort !== NEWEST) extra.sort = this.sort;
    if (this.group) extra.group = this.group;
    if (!this.hasDefaultColumns) extra.columns = this.columns.join(",");
    return readable(this.parameters(extra));
  }
}

// Commas, colons and slashes need no escaping in a query; unescaped, the URL is readable.
const readable = (parameters) =>
  parameters.toString().replaceAll("%2C", ",").replaceAll("%3A", ":").replaceAll("%2F", "/");
