// Slims the command specs of @withfig/autocomplete (MIT) to names, short descriptions of commands, and argument kinds.
//
// in:  <folder of the unpacked npm package> <selection.json>
// out: one JSON object on stdout, {tool: node, ...}; see ../README.md for the shape of a node
// run: node fig.mjs /tmp/package selection.json > specs.json      (build.py does this)
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [packageFolder, selectionFile] = process.argv.slice(2);
const selection = JSON.parse(readFileSync(selectionFile, "utf8"));
const MAX_DESCRIPTION = 80;
const MAX_SUGGESTIONS = 12;
const SUBCOMMAND = /^[A-Za-z0-9][A-Za-z0-9._:-]*$/;
const OPTION = /^(-{1,2}|\+)[A-Za-z0-9?#@][A-Za-z0-9._:?+#@-]*=?$/;
const VALUE = /^[A-Za-z0-9_.:,=/+@%-]{1,40}$/;

const asList = (value) => (value === undefined || value === null ? [] : Array.isArray(value) ? value : [value]);

// The first sentence, where it fits; a sentence cut in the middle tells nobody anything.
function shortDescription(text) {
  if (typeof text !== "string") return undefined;
  const sentence = text.replace(/\s+/g, " ").trim().split(/(?<=[a-z)])\. /)[0].replace(/\.$/, "");
  return sentence.length > 3 && sentence.length <= MAX_DESCRIPTION ? sentence : undefined;
}

function slimArgument(argument) {
  const slim = {};
  if (typeof argument.name === "string" && argument.name.length <= 30) slim.n = argument.name.trim();
  const template = asList(argument.template).filter((t) => t === "filepaths" || t === "folders");
  if (template.length) slim.t = template.includes("filepaths") ? "filepaths" : "folders";
  if (argument.isVariadic) slim.v = 1;
  if (argument.isOptional) slim.opt = 1;
  const values = asList(argument.suggestions)
    .flatMap((s) => asList(typeof s === "string" ? s : s?.name).slice(0, 1))
    .filter((s) => typeof s === "string" && VALUE.test(s) && !s.startsWith("-"));
  if (values.length) slim.e = [...new Set(values)].slice(0, MAX_SUGGESTIONS);
  return slim;
}

function slimOption(option) {
  // "--color=" and a required separator both mean that the value follows an equals sign.
  const names = asList(option.name).filter((n) => typeof n === "string" && OPTION.test(n));
  if (!names.length) return undefined;
  const slim = { n: [...new Set(names.map((n) => n.replace(/=$/, "")))] };
  const args = asList(option.args).map(slimArgument);
  if (args.length) slim.a = args;
  if (option.requiresSeparator || option.requiresEquals || names.some((n) => n.endsWith("="))) slim.eq = 1;
  if (option.isPersistent) slim.p = 1;
  if (option.isDangerous) slim.danger = true;
  return slim;
}

async function importSpec(name) {
  const file = join(packageFolder, "build", `${name}.js`);
  if (!existsSync(file)) return undefined;
  const { default: spec } = await import(pathToFileURL(file).href);
  return typeof spec === "function" ? undefined : spec;
}

async function slimCommand(command, path) {
  if (typeof command.loadSpec === "string") {
    const loaded = await importSpec(command.loadSpec);
    if (loaded) command = { ...loaded, name: command.name };
  }
  const slim = {};
  const description = shortDescription(command.description);
  if (description) slim.d = description;
  const options = asList(command.options).map(slimOption).filter(Boolean);
  if (options.length) slim.o = options;
  const wanted = selection.subcommands[path.join(" ")];
  const subcommands = [];
  for (const child of asList(command.subcommands)) {
    const names = asList(child.name).filter((n) => typeof n === "string" && SUBCOMMAND.test(n));
    if (!names.length || (wanted && !wanted.includes(names[0]))) continue;
    if (path.length >= selection.max_depth) continue;
    subcommands.push({ n: names, ...(await slimCommand(child, [...path, names[0]])) });
  }
  if (subcommands.length) slim.s = subcommands;
  const args = asList(command.args).map(slimArgument);
  if (args.length) slim.a = args;
  return slim;
}

const tools = {};
for (const tool of [...selection.tools].sort()) {
  const spec = await importSpec(tool);
  if (!spec) throw new Error(`fig.mjs: no spec for '${tool}' in ${packageFolder}; remove it from ${selectionFile}`);
  tools[tool] = await slimCommand(spec, [tool]);
}
process.stdout.write(JSON.stringify(tools));
