// Keys press the buttons that name them. Without this script the buttons work as they are.
"use strict";

const note = document.getElementById("note");
let sent = false;

function buttonFor(key) {
  const named = (button) => button.dataset.keys.split(" ").includes(key);
  return [...document.querySelectorAll("button[data-keys]")].find(named);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (event.target === note) {
    if (event.key === "Escape") note.blur();
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "n" && note) {
    event.preventDefault();
    note.focus();
    return;
  }
  const button = buttonFor(key);
  // A key that is held down answers once, not one pair after the other.
  if (button && !event.repeat) {
    event.preventDefault();
    button.click();
  }
});

// A second press on the way to the next page is not sent. What the back button shows is usable.
document.addEventListener("submit", (event) => {
  if (sent) event.preventDefault();
  sent = true;
});
addEventListener("pageshow", () => { sent = false; });
