// Durable submits to a job queue of Node's: `node peer_queue.mjs bullmq|pgboss ADDRESS CLIENTS SECONDS`; prints one JSON line.
// Each client waits for its submit to be durable before it makes the next, as ours do.
import { createRequire } from "node:module";

const [kind, address, clients, seconds] = process.argv.slice(2);
const payload = { source: { kind: "git", url: "https://git.invalid/bench.git", ref: "main" }, agent: "sleep", prompt: "go" };
const require = createRequire(import.meta.url);

async function bullmq() {
	const { Queue } = require("bullmq");
	const queue = new Queue("bench", { connection: { path: address, maxRetriesPerRequest: null } });
	await queue.waitUntilReady();
	return { add: (n) => queue.add(`b-${n}`, payload), close: () => queue.close() };
}

async function pgboss() {
	const module = await import("pg-boss");
	const PgBoss = module.default ?? module.PgBoss;
	const boss = new PgBoss({ host: address, user: "bench", database: "postgres", max: Math.min(Number(clients), 64), schedule: false, supervise: false });
	boss.on("error", (e) => { throw e; });
	await boss.start();
	await boss.createQueue("bench");
	return { add: (n) => boss.send("bench", { ...payload, name: `b-${n}` }), close: () => boss.stop({ graceful: false, wait: false }) };
}

const queue = await { bullmq, pgboss }[kind]();
const took = [];
let n = 0;
const begun = performance.now(), until = begun + 1000 * Number(seconds);
async function client() {
	for (let now = performance.now(); now < until;) {
		await queue.add(n++);
		const then = now;
		now = performance.now();
		took.push(now - then);
	}
}
await Promise.all(Array.from({ length: Number(clients) }, client));
const span = (performance.now() - begun) / 1000;
took.sort((a, b) => a - b);
console.log(JSON.stringify({ requests: took.length, per_s: took.length / span, p50_ms: took[took.length >> 1], p99_ms: took[Math.floor(took.length * 0.99)], failed: 0 }));
await queue.close();
process.exit(0);
