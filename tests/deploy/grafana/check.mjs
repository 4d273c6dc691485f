// Type-checks the dashboard against Grafana's own types, and, to see that the check sees, a few that are wrong.
import { readFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { join } from "node:path";

const here = fileURLToPath(new URL(".", import.meta.url));
const dashboard = JSON.parse(readFileSync(new URL("../../../deploy/grafana/peregrine.json", import.meta.url)));
const wrong = {
  "a tooltip that does not exist": (it) => (it.graphTooltip = 7),
  "a panel without a type": (it) => delete it.panels[1].type,
  "a place without a width": (it) => delete it.panels[1].gridPos.w,
  "a variable of no kind": (it) => (it.templating.list[0].type = "sort"),
};

const folder = mkdtempSync(join(here, "node_modules", "check-"));
const files = { right: dashboard };
for (const [name, spoil] of Object.entries(wrong)) spoil((files[name] = structuredClone(dashboard)));
let hasFailed = false;
for (const [name, content] of Object.entries(files)) {
  const file = join(folder, `${Object.keys(files).indexOf(name)}.ts`);
  const head = `import { type Dashboard, ThresholdsMode } from "@grafana/schema";\nexport const it: Dashboard = `;
  // TypeScript takes no string for an enumeration of strings.
  const text = JSON.stringify(content, null, 1).replaceAll('"mode": "absolute"', '"mode": ThresholdsMode.Absolute');
  writeFileSync(file, head + text);
}
const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"];
const sources = Object.keys(files).map((_, number) => join(folder, `${number}.ts`));
const tsc = join(here, "node_modules", "typescript", "bin", "tsc");
const found = spawnSync(process.execPath, [tsc, ...options, ...sources], { encoding: "utf8" }).stdout;
Object.keys(files).forEach((name, number) => {
  const errors = found.split("\n").filter((line) => line.includes(`${number}.ts(`));
  if ((name === "right") !== (errors.length === 0)) {
    console.error(name === "right" ? errors.join("\n") : `not noticed: ${name}`);
    hasFailed = true;
  }
});
rmSync(folder, { recursive: true });
if (hasFailed) process.exit(1);
console.log(`deploy/grafana/peregrine.json is a dashboard; ${Object.keys(wrong).length} that are not were refused`);
