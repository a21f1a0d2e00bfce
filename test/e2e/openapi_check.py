"""Every answer against the server's own description: the route, the status, the content type and the schema."""
import json
import re
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from jsonschema import Draft202012Validator, RefResolver


class Description:
    def __init__(self, doc):
        self.doc = doc
        self.resolver = RefResolver("", doc)
        self.routes = []
        for template, item in doc["paths"].items():
            pattern = re.sub(r"\\\{(\w+)\\\}", lambda m: "(?:.+)" if m[1] in ("path", "secret") else "[^/]+", re.escape(template))
            self.routes.append((re.compile(pattern + r"\Z"), template, item))
        self.routes.sort(key=lambda r: "{" in r[1])  # what is written out is meant first
        self.validators = {}

    def find(self, method, path):
        for pattern, template, item in self.routes:
            if pattern.match(path.split("?")[0]) and method.lower() in item:
                return template, item[method.lower()]
        return None, None

    def answer_of(self, operation, status):
        answer = operation["responses"].get(str(status)) or (operation["responses"].get("default") if status >= 400 else None)
        if answer and "$ref" in answer:
            answer = self.resolver.resolve(answer["$ref"])[1]
        return answer

    def validator(self, key, schema):
        if key not in self.validators:
            self.validators[key] = Draft202012Validator(schema, resolver=self.resolver)
        return self.validators[key]

    def check(self, method, path, status, content_type, body):
        """Raises AssertionError when the answer is not what the description says. HEAD and unknown paths are nobody's."""
        template, operation = self.find(method, path)
        kind = (content_type or "").split(";")[0].strip()
        if operation is None:
            assert status in (400, 404, 405, 431) or method == "HEAD", f"{method} {path} is answered ({status}) but not described"
            operation, template = {"responses": {"default": {"$ref": "#/components/responses/Problem"}}}, "?"
        answer = self.answer_of(operation, status)
        assert answer is not None, f"{method} {template}: status {status} is not described"
        if not body:
            return
        content = answer.get("content", {})
        if "*/*" in content and not kind.endswith("problem+json"):
            return
        assert kind in content, f"{method} {template} {status}: content type '{content_type}' is not described, but {sorted(content)}"
        if not kind.endswith("json"):
            return
        errors = sorted(self.validator((method, template, status, kind), content[kind]["schema"]).iter_errors(json.loads(body)), key=str)
        assert not errors, f"{method} {template} {status}: " + "; ".join(f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in errors[:3])
