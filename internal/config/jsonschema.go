package config

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// Schema is the JSON Schema of a pipeline file, for editors: what
// docs/pipeline.schema.json holds.
func Schema() []byte { return streamSchema.json("object") }

// GatewaySchema is the JSON Schema of configs/gateway.yaml: what
// docs/gateway.schema.json holds.
func GatewaySchema() []byte { return gatewaySchema.json("object") }

// EncodersSchema is the JSON Schema of an operator's file of encoders: what
// docs/encoders.schema.json holds.
func EncodersSchema() []byte { return encoderSchema.json("array") }

// object is a JSON object.
type object = map[string]any

func (s *schema) json(kind string) []byte {
	root := s.object("")
	if kind == "array" {
		root = object{"type": "array", "items": s.object("[]")}
	}
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["title"] = s.what
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		panic("config: " + err.Error()) // maps of plain values
	}
	return b.Bytes()
}

// object describes the mapping at a path.
func (s *schema) object(path string) object {
	properties := object{}
	for _, name := range s.children(path) {
		properties[name] = s.value(s.find(joinPath(path, name)))
	}
	return object{"type": "object", "additionalProperties": false, "properties": properties}
}

// value describes what a key may hold.
func (s *schema) value(k *key) object {
	v := s.plain(k)
	if k.kind != ofSection && len(s.children(k.path)) > 0 { // either or
		v = object{"anyOf": []object{v, s.object(k.path)}}
	}
	if k.kind == ofSections && k.path == "ice.servers" { // an URL, or an object of another schema
		url := object{"type": "string"}
		v = object{"anyOf": []object{url, {"type": "array", "maxItems": 16, "items": object{"anyOf": []object{url, serverSchema.object("")}}}}}
	}
	v["description"] = k.describe()
	if k.example != "" && k.kind != ofPairs && k.kind != ofNamed && k.kind != ofSections && k.kind != ofTexts {
		v["examples"] = []any{k.jsonValue(k.example)}
	}
	if k.def != "" && k.kind != ofNamed && k.kind != ofSections && k.kind != ofTexts {
		v["default"] = k.jsonValue(k.def)
	}
	return v
}

// describe is the meaning in a sentence, with unit and default.
func (k *key) describe() string {
	text := strings.ReplaceAll(k.meaning, "`", "")
	if k.unit != "" {
		text += " (" + strings.ReplaceAll(k.unit, "`", "") + ")"
	}
	if k.otherwise != "" {
		text += "; default: " + strings.ReplaceAll(k.otherwise, "`", "")
	}
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// jsonValue is a value of the key that is written as in a file.
func (k *key) jsonValue(text string) any {
	switch k.kind {
	case ofFlag:
		return text == "true"
	case ofCount:
		if n, err := strconv.Atoi(text); err == nil {
			return n
		}
	}
	return strings.Trim(text, `"`)
}

const (
	ratePattern     = `^[0-9]+(\.[0-9]+)?/[0-9]+(\.[0-9]+)?$`
	bitratePattern  = `^[0-9]+(\.[0-9]+)? ?[kKmM]?$`
	sizePattern     = `^[0-9]+(\.[0-9]+)? ?[kKMG]?(i?B)?$`
	durationPattern = `^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$`
)

// plain describes a value that has no keys which the schema knows.
func (s *schema) plain(k *key) object {
	number := func(kind string) object {
		v := object{"type": kind}
		if k.least != 0 || k.most != 0 {
			v["minimum"], v["maximum"] = k.least, k.most
		}
		return v
	}
	text := object{"type": "string"}
	switch k.kind {
	case ofSection:
		return s.object(k.path)
	case ofSections:
		return object{"type": "array", "minItems": 1, "maxItems": maxRenditions, "items": s.object(k.path + "[]")}
	case ofWord:
		return object{"enum": k.words}
	case ofName:
		return object{"anyOf": []object{{"enum": (*Encoders)(nil).names("", false)}, text}}
	case ofFlag:
		return object{"type": "boolean"}
	case ofCount:
		return number("integer")
	case ofRate:
		return object{"anyOf": []object{number("number"), {"type": "string", "pattern": ratePattern}}}
	case ofBitrate:
		return object{"anyOf": []object{number("number"), {"type": "string", "pattern": bitratePattern}}}
	case ofSize:
		return object{"anyOf": []object{number("number"), {"type": "string", "pattern": sizePattern}}}
	case ofDuration:
		return object{"anyOf": []object{{"type": "string", "pattern": durationPattern}, {"const": 0}}}
	case ofTexts:
		return object{"anyOf": []object{text, {"type": "array", "items": text}}}
	case ofNamed:
		v := object{"type": "object", "propertyNames": object{"pattern": k.names.String()}, "additionalProperties": k.of.object("")}
		if k.most > 0 {
			v["maxProperties"] = k.most
		}
		return v
	case ofPairs:
		return object{"type": "object", "additionalProperties": object{"type": []string{"string", "number", "boolean"}}}
	}
	return text
}
