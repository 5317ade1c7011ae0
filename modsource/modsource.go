// Package modsource is what a livepatch module says about its own sources, so
// that it can be verified later: the patches as they were applied, and how.
//
// It is in a section that is not loaded. Nothing in it is trusted: klpc verify
// compiles it again and compares. The section holds JSON, compressed with zstd,
// and depends on the patches alone.
package modsource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Section is the name of the section.
const Section = ".klpc.source"

// format is the version of the content.
const format = 1

// maxSize bounds the content in bytes. A series for a whole release has some MiB.
const maxSize = 64 << 20

// Source is what a module was made from.
type Source struct {
	Format  int     `json:"format"`
	Patches []Patch `json:"patches"` // in the order of their application
	// Fuzz is how many lines of context could be ignored, as of patch(1).
	Fuzz int `json:"fuzz,omitempty"`
	// Units are the sources that were compiled and that change, sorted.
	Units []string `json:"units"`
}

// Patch is one file of patches.
type Patch struct {
	Name string `json:"name"` // of the file, without folders
	Text []byte `json:"text"`
}

// Encode returns the section's content.
func Encode(s Source) ([]byte, error) {
	s.Format = format
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	defer w.Close()
	return w.EncodeAll(text, nil), nil
}

// Decode reads the section's content.
func Decode(data []byte) (Source, error) {
	var s Source
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxSize))
	if err != nil {
		return s, fmt.Errorf("internal error: %w", err)
	}
	defer r.Close()
	text, err := r.DecodeAll(data, nil)
	if err != nil {
		return s, fmt.Errorf("section %s: %w", Section, err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("section %s: %w", Section, err)
	}
	if s.Format != format {
		return s, fmt.Errorf("section %s: format %d is not known; another version of klpc made this module", Section, s.Format)
	}
	if len(s.Patches) == 0 {
		return s, errors.New("section " + Section + ": no patches")
	}
	return s, nil
}
