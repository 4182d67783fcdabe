// Runs before the first paint (not a module), so that a page never flashes in the wrong colours.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const read = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // storage may be disabled: the system's theme applies
    }
  };
  const apply = () => {
    const chosen = read();
    document.documentElement.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
    document.documentElement.dataset.chosen = chosen ?? "system";
    dispatchEvent(new Event("themechange"));
  };
  apply();
  system.addEventListener("change", apply);
  addEventListener("storage", apply);

  addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("#theme");
    const names = { system: "system setting", light: "light", dark: "dark" };
    const show = () => {
      const chosen = document.documentElement.dataset.chosen;
      button.setAttribute("aria-label", `Colours: ${names[chosen]}`);
      button.title = `Colours: ${names[chosen]}`;
      button.textContent = { system: "◐", light: "☀", dark: "☾" }[chosen];
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      const next = { system: "light", light: "dark", dark: "system" }[document.documentElement.dataset.chosen];
      try {
        if (next === "system") localStorage.removeItem("theme");
        else localStorage.setItem("theme", next);
      } catch {
        // the choice is not stored
      }
      apply();
      show();
    });
    show();
  });
})();
