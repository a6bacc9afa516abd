// Package config turns YAML files into checked values: the gateway's own
// configuration, the pipelines that users edit, and the table of encoders. It
// hides how text becomes values: a caller gets all of them with their defaults,
// or every finding at once with file, line, column, key and remedy.
//
// Compile makes a pipeline's launch text for the GStreamer that is installed,
// which it sees through Registry. The package starts no goroutines, and reads
// nothing but the files that it is asked for.
package config
