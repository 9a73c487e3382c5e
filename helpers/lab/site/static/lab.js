// A figure is as wide as the page at most; on a phone one wants to look closer.
for (const image of document.querySelectorAll("article img")) {
  if (!image.closest("a")) {
    const whole = Object.assign(document.createElement("a"), { href: image.src, title: "The figure alone" });
    image.replaceWith(whole);
    whole.append(image);
  }
}
