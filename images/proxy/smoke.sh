#!/bin/sh
# Run in the image: the proxy answers, keeps its API to those who have the token, and routes to where it is told.
set -eu
[ "$(id -u)" = 1000 ] || { echo "runs as $(id -u)"; exit 1; }
export CONFIGPROXY_AUTH_TOKEN=smoke
configurable-http-proxy --ip=127.0.0.1 --port=18000 --api-ip=127.0.0.1 --api-port=18001 &
proxy=$!
trap 'kill $proxy' EXIT
node - <<'SCRIPT'
const api = "http://127.0.0.1:18001/api/routes";
const token = { Authorization: "token smoke" };
const target = require("http").createServer((request, answer) => answer.end("reached " + request.url));

async function untilItAnswers() {
  for (const ends = Date.now() + 20000; Date.now() < ends; ) {
    try {
      return await fetch(api);
    } catch {
      await new Promise((again) => setTimeout(again, 100));
    }
  }
  throw new Error("no answer within 20 s");
}

function same(what, found, wanted) {
  if (found !== wanted) throw new Error(`${what}: ${found}, not ${wanted}`);
}

async function smoke() {
  same("the API without the token", (await untilItAnswers()).status, 403);
  await new Promise((listening) => target.listen(18002, "127.0.0.1", listening));
  const route = { method: "POST", headers: token, body: JSON.stringify({ target: "http://127.0.0.1:18002" }) };
  same("adding a route", (await fetch(api + "/user/smoke", route)).status, 201);
  const answer = await fetch("http://127.0.0.1:18000/user/smoke/lab");
  same("the route", await answer.text(), "reached /user/smoke/lab");
  same("what has no route", (await fetch("http://127.0.0.1:18000/elsewhere")).status, 404);
  console.log("proxy " + process.version + " answers");
  process.exit(0);
}

smoke().catch((problem) => { console.error(problem.message); process.exit(1); });
SCRIPT
