// llama.cpp behind a pipe: a JSON request per line of stdin, a JSON reply per line of stdout. bench/llamacpp.py speaks to it.
// Prebuilt CPU library only: it compiles nothing, downloads nothing and opens no connection.
import {createInterface} from "node:readline";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const llama = await getLlama({build: "never", skipDownload: true, gpu: false, logLevel: LlamaLogLevel.error});
let model, context;

const commands = {
  async load({file, threads, length, sequences}) {
    await context?.dispose();
    await model?.dispose();
    model = await llama.loadModel({modelPath: file, useMmap: true});
    context = await model.createContext({contextSize: length, sequences, threads, batchSize: 512});
    return {vocabulary: model.fileInfo.metadata.tokenizer.ggml.tokens.length};
  },
  async tokenize({text}) {
    return {ids: model.tokenize(text, false)};
  },
  async greedy({ids, count}) {
    return using(1, async ([sequence]) => ({ids: await continued(sequence, ids, count)}));
  },
  // Seconds until the first token after `prompt`, and for `count` more tokens after each of `prompts`, side by side.
  async prefill({ids}) {
    return using(1, async ([sequence]) => ({seconds: await seconds(() => continued(sequence, ids, 1))}));
  },
  async decode({prompts, count}) {
    return using(prompts.length, async (sequences) => {
      const running = prompts.map((ids, n) => sequences[n].evaluate(ids, {temperature: 0, yieldEogToken: true}));
      await Promise.all(running.map((tokens) => tokens.next()));
      return {
        seconds: await seconds(() =>
          Promise.all(
            running.map(async (tokens) => {
              for (let n = 0; n < count; n++) await tokens.next();
            }),
          ),
        ),
      };
    });
  },
};

async function using(count, work) {
  const sequences = Array.from({length: count}, () => context.getSequence());
  try {
    return await work(sequences);
  } finally {
    for (const sequence of sequences) sequence.dispose();
  }
}

async function continued(sequence, ids, count) {
  const found = [];
  for await (const token of sequence.evaluate(ids, {temperature: 0, yieldEogToken: true})) {
    found.push(token);
    if (found.length >= count) break;
  }
  return found;
}

async function seconds(work) {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

for await (const line of createInterface({input: process.stdin})) {
  const {command, ...rest} = JSON.parse(line);
  let reply;
  try {
    reply = await commands[command](rest);
  } catch (error) {
    reply = {error: String(error?.message ?? error)};
  }
  process.stdout.write(JSON.stringify(reply) + "\n");
}
process.exit(0);
