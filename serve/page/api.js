// The server's API: requests with the key, refusals in words for people, the events of a stream. It knows nothing of the page.

const KEY = "key"; // sessionStorage: this tab alone, until it is closed
const TOO_LONG = ["context_length_exceeded", "too_many_tokens", "invalid_prompt"]; // what can be wrong with a text that is not empty

export const keep = (key) => sessionStorage.setItem(KEY, key);

// Why there is no answer. `kind`: network, key, busy, long or server; `wait`: seconds until another try makes sense.
export class Refusal extends Error {
  constructor(kind, message, wait = 0) {
    super(message);
    this.kind = kind;
    this.wait = wait;
  }
}

// GET, or POST where there is a body. Throws a Refusal, or an AbortError when `signal` was used.
export async function request(path, { body, signal } = {}) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Refusal("network", "The server does not answer. It may be down, or the network is.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const { message = `status ${response.status}`, code } = (await response.json().catch(() => ({}))).error ?? {};
  const wait = Number(response.headers.get("Retry-After")) || 0;
  if (response.status === 401) return new Refusal("key", sessionStorage.getItem(KEY) ? "The server does not take this key." : "The server asks for a key.");
  if (response.status === 429) return new Refusal("busy", "The server is busy.", Math.max(1, wait));
  if (response.status === 413 || TOO_LONG.includes(code)) {
    return new Refusal("long", `This is too long for the model. Shorten it, ask for less, or begin anew. (${message})`);
  }
  return new Refusal("server", `The server refused: ${message}`, wait);
}

// The JSON of each server-sent event up to [DONE]. A stream that ends before it was cut off.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      return { done: true };
    });
    if (done) throw new Refusal("network", "The connection was lost. The answer is not complete.");
    const whole = (rest + value).split(/\r?\n\r?\n/);
    rest = whole.pop();
    for (const event of whole) {
      if (!event.startsWith("data:")) continue;
      const data = event.slice(5).trim();
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refusal("server", `The server broke off: ${chunk.error.message}`);
      yield chunk;
    }
  }
}
