// Servers as one would write them in Node: `node peer_server.mjs KIND SOCKET [...]`; each says "ready" when it listens.
//   fastify SOCKET DATABASE             one row by its id from SQLite; POST makes one, durably
//   sse SOCKET SUBSCRIBERS EVERY_US N   when so many listen, N lines to each of them, one every EVERY_US
//   ws SOCKET SUBSCRIBERS EVERY_US N    the same over WebSocket
import http from "node:http";
import fs from "node:fs";

const [kind, socket, ...rest] = process.argv.slice(2);
const ready = () => { fs.chmodSync(socket, 0o666); console.log("ready"); };

async function serveFastify([file]) {
	const { default: Fastify } = await import("fastify");
	const { default: Database } = await import("better-sqlite3");
	const db = new Database(file);
	db.pragma("journal_mode = WAL");
	db.pragma("synchronous = FULL");
	db.exec("CREATE TABLE IF NOT EXISTS tasks(id TEXT PRIMARY KEY, body TEXT NOT NULL)");
	const get = db.prepare("SELECT body FROM tasks WHERE id=?"), put = db.prepare("INSERT INTO tasks(id, body) VALUES(?, ?)");
	const app = Fastify({ logger: false });
	app.get("/tasks/:id", (request, reply) => {
		const row = get.get(request.params.id);
		reply.code(row ? 200 : 404).type("application/json").send(row ? row.body : "{}");
	});
	app.post("/tasks", (request, reply) => {
		put.run(request.body.name, JSON.stringify(request.body));
		reply.code(201).send({ id: request.body.name });
	});
	await app.listen({ path: socket });
	ready();
}

// Each line at its own time; what the loop was late for comes at once.
function pace(everyUs, count, send) {
	const begun = performance.now();
	let n = 0;
	const timer = setInterval(() => {
		const due = Math.min(count, Math.floor((performance.now() - begun) * 1000 / everyUs));
		for (; n < due; n++)
			send(n, JSON.stringify({ seq: n + 1, at: new Date().toISOString(), type: "message.done", task: "01m7wjz3hvxdx4sy7f1mwe5hrb", worker: "main", run: 1, actor: "agent",
				data: { text: `line ${n} of a paced agent, about as long as such lines are` } }));
		if (n === count)
			clearInterval(timer);
	}, 1);
}

function serveSse([subscribers, everyUs, count]) {
	const all = new Set();
	const server = http.createServer((request, reply) => {
		reply.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
		reply.write("event: hello\ndata: {}\n\n");
		all.add(reply);
		request.on("close", () => all.delete(reply));
		if (all.size === Number(subscribers))
			pace(Number(everyUs), Number(count), (n, line) => {
				const frame = `id: ${n + 1}\ndata: ${line}\n\n`;
				for (const one of all)
					one.write(frame);
			});
	});
	server.listen(socket, 4096, ready);
}

async function serveWs([subscribers, everyUs, count]) {
	const { WebSocketServer } = await import("ws");
	const server = http.createServer();
	const wss = new WebSocketServer({ server });
	wss.on("connection", (one) => {
		one.send("{}");
		if (wss.clients.size === Number(subscribers))
			pace(Number(everyUs), Number(count), (n, line) => {
				for (const client of wss.clients)
					client.send(line);
			});
	});
	server.listen(socket, 4096, ready);
}

await { fastify: serveFastify, sse: serveSse, ws: serveWs }[kind](rest);
