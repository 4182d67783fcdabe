document.querySelector("#sign-out").addEventListener("click", async () => {
  await fetch("/session", { method: "DELETE" });
  location.assign("/ui/sign-in");
});
