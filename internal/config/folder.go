package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// File is one pipeline file as it was read.
type File struct {
	Path string
	Data []byte
	Err  error // Errors: why it can't be read, or what is wrong with its name; nil: Data is what it holds
}

// Name is the name of the file's stream.
func (f File) Name() string { return strings.TrimSuffix(filepath.Base(f.Path), ".yaml") }

// ListFolder lists the pipeline files of a folder in the order of their names,
// misnamed ones (.yml) included; files whose names begin with a dot are left out.
// The error is Errors: the folder can't be read.
func ListFolder(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		message, remedy := bare(err), "make it readable for the gateway's user"
		if errors.Is(err, os.ErrNotExist) {
			message, remedy = "the folder of pipelines does not exist", "create it, or name another by -pipelines or the key pipelines"
		}
		return nil, Errors{{File: dir, Message: message, Remedy: remedy, Severity: Fault}}
	}
	var paths []string
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, ".") && (strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")) {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	return paths, nil
}

// ReadFile reads one pipeline file.
func ReadFile(path string) File {
	f := File{Path: path}
	if !strings.HasSuffix(path, ".yaml") {
		f.Err = Errors{{File: path, Message: "a pipeline file ends in .yaml", Remedy: "rename it", Severity: Fault}}
		return f
	}
	data, fault := readFile(path)
	if f.Data = data; fault != nil {
		f.Err = Errors{fault}
	}
	return f
}

// Parse checks what the file holds against a table of encoders (nil: the gateway's
// own). The error is Errors: all findings at once.
func (f File) Parse(table *Encoders) (*Stream, error) {
	if f.Err != nil {
		return nil, f.Err
	}
	return ParseStream(f.Name(), f.Path, f.Data, table)
}
