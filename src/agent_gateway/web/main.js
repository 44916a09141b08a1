// The page as a whole: who chats with which app, and how its parts know of each other.

import { Api, newId } from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { ConversationList } from "./conversation_list.js";
import { byId } from "./dom.js";
import { FramesDrawer } from "./frames_drawer.js";
import { icon } from "./icons.js";
import { read, write } from "./storage.js";

const USER = "agent-gateway-user";
const THEME = "agent-gateway-theme";
const LINK_USED = "This link was used before, or has expired. Start the gateway again for a new one, or give an API key.";

// Of this browser: made once, changed in the settings.
if (!read(USER)) write(USER, `playground-${newId().slice(0, 8)}`);

let isOpen = false;
let appName = "Agent Gateway";
const api = new Api(read(USER), () => {
  if (isOpen) askForKey("The session has ended.");
});
const drawer = new FramesDrawer();
// Other tabs of this browser: told that a conversation has changed.
const channel = new BroadcastChannel("agent-gateway");
channel.onmessage = (/** @type {MessageEvent<{conversation: string}>} */ { data }) => {
  if (!isOpen) return;
  list.refresh().then(title);
  if (data.conversation === chat.conversation) chat.refresh();
};
const list = new ConversationList(api, {
  open: (id) => show(id),
  removed: (id) => {
    tellOthers(id);
    if (chat.conversation === id) show("");
    else composer.focus();
  },
  changed: () => {
    tellOthers("");
    title();
  },
});
const chat = new Chat(api, {
  frame: (frame) => drawer.add(frame),
  opened: () => drawer.clear(),
  running: (count) => composer.showStop(count > 0),
  begun: async (id) => {
    tellOthers(id);
    if (chat.conversation === id) settle();
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

/** @param {string} conversation */
function tellOthers(conversation) {
  channel.postMessage({ conversation });
}

/** The conversation is in the address, so that a reload comes back to it. */
function settle() {
  const { conversation } = chat;
  history.replaceState(null, "", conversation ? `#${conversation}` : location.pathname + location.search);
  composer.begin(!conversation);
  list.select(conversation);
  title();
}

function title() {
  const name = chat.conversation ? list.nameOf(chat.conversation) || "Conversation" : "";
  document.title = name ? `${name} – ${appName}` : appName;
  byId("conversation-name").textContent = name || "New conversation";
}

/** @param {string} id */
async function show(id) {
  showList(false);
  composer.showProblem("");
  const opening = chat.open(id);
  settle();
  composer.focus();
  await opening;
  // It may not be there any more.
  if (id && !chat.conversation) settle();
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
  list.reset();
  await list.refresh();
  isOpen = true;
  byId("page").hidden = false;
  await show(location.hash.slice(1));
}

/** Ask for an API key until one opens an app. @param {string} problem why */
function askForKey(problem) {
  const dialog = byId("key-dialog");
  const told = byId("key-problem");
  const input = byId("key");
  told.textContent = problem;
  if (dialog.open) return;
  const before = api.key;
  byId("key-cancel").hidden = Boolean(problem) || !isOpen;
  dialog.showModal();
  // Where there is nothing behind it, it stays, however often Escape is pressed.
  dialog.onclose = () => {
    if (!isOpen) askForKey(told.textContent);
  };
  dialog.querySelector("form").onsubmit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const key = input.value.trim();
    if (!/^[!-~]+$/.test(key)) {
      told.textContent = "A key has only letters, digits and signs, without spaces.";
      return;
    }
    api.key = key;
    const wasOpen = isOpen;
    isOpen = false;
    try {
      await start();
      input.value = "";
      dialog.close();
      composer.focus();
    } catch (error) {
      api.key = before;
      isOpen = wasOpen;
      told.textContent = error.status === 401 ? "This key opens no app." : error.message;
    }
  };
}

async function begin() {
  const linkUsed = location.hash === "#link-used";
  if (linkUsed) history.replaceState(null, "", location.pathname);
  try {
    await start();
  } catch (error) {
    if (error.status === 401) askForKey(linkUsed ? LINK_USED : "");
    else byId("start-problem").textContent = `${error.message} Reload the page to try again.`;
  }
}

/** On a narrow page the list of conversations lies over the chat. @param {boolean} isShown */
function showList(isShown) {
  const button = byId("show-list");
  const wasShown = document.body.classList.contains("with-list");
  document.body.classList.toggle("with-list", isShown);
  button.setAttribute("aria-expanded", String(isShown));
  byId("chat").inert = isShown;
  if (isShown) byId("new-conversation").focus();
  else if (wasShown) button.focus();
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
byId("show-list").onclick = () => showList(true);
byId("hide-list").onclick = () => showList(false);
byId("backdrop").onclick = () => showList(false);
byId("sidebar").onkeydown = (/** @type {KeyboardEvent} */ event) => {
  if (event.key === "Escape" && document.body.classList.contains("with-list")) showList(false);
};
byId("settings").onclick = () => byId("settings-dialog").showModal();
byId("theme").value = document.documentElement.dataset.theme = read(THEME);
byId("theme").onchange = (/** @type {any} */ event) => {
  write(THEME, event.target.value);
  document.documentElement.dataset.theme = event.target.value;
};
byId("settings-form").onsubmit = async (/** @type {any} */ event) => {
  event.preventDefault();
  const user = byId("user-name").value.trim();
  byId("settings-dialog").close();
  if (user && user !== api.user) {
    write(USER, user);
    api.user = user;
    list.reset();
    show("");
    await list.refresh();
  }
};
byId("other-key").onclick = () => {
  byId("settings-dialog").close();
  askForKey("");
};
byId("sign-out").onclick = async () => {
  try {
    await api.call("POST", "sign-out");
    location.assign(location.pathname);
  } catch (error) {
    byId("settings-problem").textContent = error.message;
  }
};
addEventListener("hashchange", () => {
  if (isOpen && location.hash.slice(1) !== chat.conversation) show(location.hash.slice(1));
});
document.addEventListener("visibilitychange", () => {
  // Whatever happened meanwhile, in another browser for example.
  if (isOpen && document.visibilityState === "visible") {
    list.refresh().then(title);
    chat.refresh();
  }
});
begin();
