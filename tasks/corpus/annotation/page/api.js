// The server's API, relative to the page's own address, which holds the token.

export async function request(path, { method = "GET", body } = {}) {
  const options = { method };
  if (method !== "GET") Object.assign(options, { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body ?? {}) });
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Start it again and open the address that it prints: all marks up to here are saved.");
  }
  const content = await response.json().catch(() => ({}));
  if (response.ok) return content;
  const reason = content.error ?? `the server answered with status ${response.status}`;
  const error = new Error(method === "PUT" ? `Not saved: ${reason}.` : `${reason[0].toUpperCase()}${reason.slice(1)}.`);
  error.status = response.status;
  throw error;
}
