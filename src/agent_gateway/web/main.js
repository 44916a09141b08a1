// The page as a whole: who chats with which app, and how its parts know of each other.

import { Api, ApiError, newId } from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { ConversationList } from "./conversation_list.js";
import { byId } from "./dom.js";
import { FramesDrawer } from "./frames_drawer.js";
import { icon } from "./icons.js";
import { LiveTurns } from "./live_turns.js";

const USER = "agent-gateway-user";
const THEME = "agent-gateway-theme";

/** The end user of this browser: made once, changed in the settings. */
function storedUser() {
  const user = localStorage.getItem(USER) || `playground-${newId().slice(0, 8)}`;
  localStorage.setItem(USER, user);
  return user;
}

const api = new Api(storedUser());
const drawer = new FramesDrawer();
const live = new LiveTurns(
  (turn) => {
    chat.join(turn);
    list.refresh();
  },
  () => list.refresh(),
);
const list = new ConversationList(api, {
  open: (id) => show(id),
  removed: (id) => {
    live.tell();
    if (chat.conversation === id) show("");
  },
  changed: () => {
    live.tell();
    title();
  },
});
const chat = new Chat(api, live, {
  frame: (frame) => drawer.add(frame),
  running: (count) => composer.showStop(count > 0),
  begun: async (id) => {
    if (chat.conversation === id) {
      address(id);
      composer.begin(false);
    }
    await list.refresh();
    list.select(chat.conversation);
    title();
  },
  ended: () => list.refresh().then(title),
  ask: (query) => composer.ask(query),
  problem: (text) => composer.showProblem(text),
});
const composer = new Composer(api, {
  send: (query, files, inputs) => chat.send(query, files, inputs),
  stop: () => chat.stop(),
});
let appName = "Agent Gateway";

/** The conversation is in the address, so that a reload comes back to it. @param {string} id */
function address(id) {
  history.replaceState(null, "", id ? `#${id}` : location.pathname + location.search);
}

function title() {
  const name = chat.conversation ? list.nameOf(chat.conversation) : "";
  document.title = name ? `${name} – ${appName}` : appName;
  byId("conversation-name").textContent = name || "New conversation";
}

/** @param {string} id */
async function show(id) {
  document.body.classList.remove("with-list");
  address(id);
  composer.showProblem("");
  composer.begin(!id);
  list.select(id);
  title();
  await chat.open(id);
  address(chat.conversation);
  composer.begin(!chat.conversation);
  list.select(chat.conversation);
  composer.focus();
}

/** Learn what the app is, and show it. Raises ApiError. */
async function start() {
  const info = await api.info();
  const [parameters, site] = await Promise.all([api.parameters(), api.site()]);
  appName = site.title || info.name;
  byId("app-name").textContent = appName;
  byId("app-name").title = info.description;
  byId("app-icon").textContent = site.icon_type === "emoji" ? site.icon : "";
  byId("disclaimer").textContent = site.custom_disclaimer;
  byId("user-name").value = api.user;
  byId("sign-out").hidden = Boolean(api.key);
  chat.configure(parameters);
  composer.configure(parameters, site);
  await list.refresh();
  byId("page").hidden = false;
  await show(location.hash.slice(1));
}

/** Ask for an API key until one opens an app. @param {string} problem why */
function askForKey(problem) {
  const dialog = byId("key-dialog");
  const told = byId("key-problem");
  told.textContent = problem;
  byId("page").hidden = true;
  if (!dialog.open) dialog.showModal();
  dialog.oncancel = (/** @type {Event} */ event) => event.preventDefault();
  dialog.querySelector("form").onsubmit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const input = byId("key");
    api.key = input.value.trim();
    try {
      await start();
      input.value = "";
      dialog.close();
      composer.focus();
    } catch (error) {
      api.key = "";
      told.textContent = error.message;
    }
  };
}

async function begin() {
  const linkUsed = location.hash === "#link-used";
  if (linkUsed) address("");
  try {
    await start();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      askForKey(linkUsed ? "This link was used before, or has expired. Start the gateway again for a new one." : "");
    } else {
      byId("page").hidden = true;
      byId("start-problem").textContent = `${error.message} Reload the page to try again.`;
    }
  }
}

for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-icon]"))) {
  button.append(icon(/** @type {any} */ (button.dataset.icon)));
}
for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog")?.close());
}
byId("skip").onclick = (/** @type {Event} */ event) => {
  event.preventDefault();
  composer.focus();
};
byId("new-conversation").onclick = () => show("");
byId("show-list").onclick = () => document.body.classList.toggle("with-list");
byId("settings").onclick = () => byId("settings-dialog").showModal();
byId("theme").value = localStorage.getItem(THEME) ?? "";
byId("theme").onchange = (/** @type {any} */ event) => {
  localStorage.setItem(THEME, event.target.value);
  document.documentElement.dataset.theme = event.target.value;
};
document.documentElement.dataset.theme = localStorage.getItem(THEME) ?? "";
byId("settings-form").onsubmit = async (/** @type {any} */ event) => {
  event.preventDefault();
  const user = byId("user-name").value.trim();
  byId("settings-dialog").close();
  if (user && user !== api.user) {
    localStorage.setItem(USER, user);
    api.user = user;
    await list.refresh();
    await show("");
  }
};
byId("other-key").onclick = () => {
  byId("settings-dialog").close();
  askForKey("");
};
byId("sign-out").onclick = async () => {
  await api.call("POST", "sign-out").catch(() => {});
  location.assign(location.pathname);
};
window.onhashchange = () => {
  if (location.hash.slice(1) !== chat.conversation) show(location.hash.slice(1));
};
begin();
