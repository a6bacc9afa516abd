// Package config turns YAML files into checked values: the gateway's own
// configuration, the pipelines that users edit, and the table of encoders. It
// hides how text becomes values: a caller gets all of them with their defaults,
// or every finding at once with file, line, column, key and remedy. The same
// tables of keys make the JSON Schemas and the reference in the documentation.
//
// Compile makes a stream's launch texts for the GStreamer that is installed,
// which it sees through Registry. What it knows about encoders and sources is
// data, in encoders.yaml and sources.yaml. The package starts no goroutines, and reads
// nothing but the files that it is asked for.
package config
