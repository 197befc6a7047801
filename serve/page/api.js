// The server's API: requests with the key, errors in words for people, the events of a stream. It knows nothing of the page.

const KEY = "key"; // in sessionStorage: for this tab alone, until it is closed
// The codes of errors that the page's requests can only get for a text that is too long.
const TOO_LONG = ["context_length_exceeded", "too_many_tokens", "invalid_prompt"];

export const saveKey = (key) => sessionStorage.setItem(KEY, key);

// Why there is no answer. `kind`: network, key, busy, long or server; `wait`: seconds until another try makes sense.
export class ApiError extends Error {
  constructor(kind, message, wait = 0) {
    super(message);
    this.kind = kind;
    this.wait = wait;
  }
}

// GET, or POST if there is a body. Throws an ApiError, or an AbortError when `signal` was used.
export async function request(path, { body, signal } = {}) {
  const options = { method: body ? "POST" : "GET", headers: headersFor(body), body: body && JSON.stringify(body), signal };
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new ApiError("network", "The server does not answer. It may be down, or the network is.");
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

function headersFor(body) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  return headers;
}

async function errorOf(response) {
  const { message = `status ${response.status}`, code } = (await response.json().catch(() => ({}))).error ?? {};
  const wait = Number(response.headers.get("Retry-After")) || 0;
  if (response.status === 401) {
    return new ApiError("key", sessionStorage.getItem(KEY) ? "The server does not take this key." : "The server asks for a key.");
  }
  if (response.status === 429) return new ApiError("busy", "The server is busy.", Math.max(1, wait));
  if (response.status === 413 || TOO_LONG.includes(code)) {
    return new ApiError("long", `This is too long for the model. Shorten it, ask for less, or begin anew. (${message})`);
  }
  return new ApiError("server", `The server refused: ${message}`, wait);
}

// The JSON of each server-sent event up to [DONE]. A stream that ends without it was cut off.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      return { done: true };
    });
    if (done) throw new ApiError("network", "The connection was lost. The answer is not complete.");
    const complete = (buffer + value).split(/\r?\n\r?\n/);
    buffer = complete.pop();
    for (const event of complete) {
      if (!event.startsWith("data:")) continue;
      const data = event.slice(5).trim();
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError("server", `The server broke off: ${chunk.error.message}`);
      yield chunk;
    }
  }
}
