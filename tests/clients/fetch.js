// For Deno and Bun alike.
const cells = globalThis.Deno ? Deno.args : process.argv.slice(2);
for (const cell of cells) {
  const at = cell.indexOf("=");
  console.log("==", cell.slice(0, at));
  try { const answer = await fetch(cell.slice(at + 1)); console.log(answer.status, await answer.text()); }
  catch (error) { console.log(String(error), String(error.cause ?? "")); }
}
