// Without JavaScript the form works as well; with it a wrong password is told in place.
import { chooseTheme } from "./theme.js";

const WORDS = { 401: "That password is not right.", 403: "That password is not right.", 429: "Too many attempts. Wait a minute." };
const form = document.getElementById("form");
const refused = document.getElementById("refused");

chooseTheme();
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  refused.textContent = "";
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const answer = await fetch("/sign-in", { method: "POST", body: new URLSearchParams(new FormData(form)), redirect: "manual" });
    if (answer.type === "opaqueredirect" || answer.ok) {
      location.assign("/");
      return;
    }
    refused.textContent = WORDS[answer.status] ?? `The device answered ${answer.status}.`;
  } catch {
    refused.textContent = "The device does not answer.";
  }
  button.disabled = false;
  document.getElementById("password").select();
});
