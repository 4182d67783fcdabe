// Replaces #live by what the server shows now; the server makes all HTML, so there is one set of templates.
export async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) throw new Error(`HTTP status ${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const [before, now] = [document.querySelector("#live"), page.querySelector("#live")];
  if (!before || !now || before.isEqualNode(now)) return;
  keepPictures(before, now);
  before.replaceWith(now);
}

// A picture that has not changed is moved, not loaded again: nothing flickers.
function keepPictures(before, now) {
  const known = new Map([...before.querySelectorAll("img")].map((image) => [image.src, image]));
  for (const image of now.querySelectorAll("img")) {
    const same = known.get(image.src);
    if (same) image.replaceWith(same);
  }
}
