// Dark or light: as the browser prefers, until somebody chooses.
const NEXT = { "": "dark", dark: "light", light: "" };
const WORDS = { "": "◐ Auto", dark: "● Dark", light: "○ Light" };

function kept() {
  try {
    const theme = localStorage.getItem("theme") ?? "";
    return theme in NEXT ? theme : "";
  } catch {
    return ""; // storage may be forbidden
  }
}

export function chooseTheme(button = null) {
  let theme = kept();
  const show = () => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    if (button) {
      button.textContent = WORDS[theme];
      button.setAttribute("aria-label", `${WORDS[theme].slice(2)} theme, change`);
    }
    document.dispatchEvent(new Event("theme"));
  };
  button?.addEventListener("click", () => {
    theme = NEXT[theme];
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // it lasts until the page is loaded again
    }
    show();
  });
  show();
}

export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
