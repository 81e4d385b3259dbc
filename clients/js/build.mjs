// Builds dist/: one bundle with three endings (an ES module, a CommonJS module, a script-tag build), the React hook, the
// helper for workers, and their types. Nothing of the bundler is left in them. `npm run build`; prints what each weighs, packed as servers pack it.
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

// Names between our own modules. None of them is on the wire, in storage, in an option or an event: those keep theirs.
const INTERNAL = `AUTH LOST NORMAL PROTOCOL REJECTED SUPERSEDED acknowledge allSent asksForHttp attempt clear comeBack down drop fail first frame frozen heard
  heartbeatMs hide holdAgain isAware isFlying isLive jitterMs leave letGo lose missing outbox owesAck progress pump receive
  received renew restore rewind saved sse stranger take takePlain takeUp thaw tick transport unheard until waits wake`;

const common = { bundle: true, minify: true, target: 'es2022', format: 'esm', write: false, external: ['react', 'holdline'] };
const mangleProps = new RegExp(`^(${INTERNAL.split(/\s+/).join('|')})$`);

/** The one expression that a bundle exports, and the code before it. */
async function bundled(entry) {
  const { outputFiles } = await build({ ...common, mangleProps, entryPoints: [entry] });
  const [, body, names] = outputFiles[0].text.match(/^(.*)export\{(.*)\};\s*$/s);
  return { body, exported: Object.fromEntries(names.split(',').map((name) => name.split(' as ').reverse())) };
}

function write(name, text) {
  writeFileSync(`dist/${name}`, `${text}\n`);
  console.log(`dist/${name}: ${gzipSync(readFileSync(`dist/${name}`), { level: 9 }).length} bytes gzip`);
}

const list = (exported, between) => Object.entries(exported).map(([name, local]) => between(name, local)).join();

rmSync('dist', { recursive: true, force: true });
mkdirSync('dist');

const { body, exported } = await bundled('src/index.js');
write('index.js', `${body}export{${list(exported, (name, local) => `${local} as ${name}`)}};`);
write('index.cjs', `${body}module.exports={${list(exported, (name, local) => `${name}:${local}`)}};`);
write('holdline.min.js', `(()=>{${body}globalThis.HoldlineSocket=${exported.HoldlineSocket}})();`);

const react = await build({ ...common, entryPoints: ['src/react.js'] });
write('react.js', react.outputFiles[0].text.trim());
const reactCommonJs = await build({ ...common, format: 'cjs', entryPoints: ['src/react.js'] });
write('react.cjs', reactCommonJs.outputFiles[0].text.trim());

// For workers in Node: nothing of it goes to a browser, so it may be read.
for (const [ending, format] of [['js', 'esm'], ['cjs', 'cjs']]) {
  const made = await build({ ...common, minify: false, platform: 'node', format, entryPoints: ['worker/index.js'] });
  write(`worker.${ending}`, made.outputFiles[0].text.trim());
}

for (const name of ['index', 'react', 'worker']) {
  for (const ending of ['d.ts', 'd.cts']) copyFileSync(`types/${name}.d.ts`, `dist/${name}.${ending}`);
}
