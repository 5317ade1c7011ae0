package target

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"
)

// Bounds on what comes out of a compressed file, in bytes. A stock kernel is
// 50 to 100 MiB and compresses to a fifth; a file that exceeds both bounds was
// made to exhaust its reader.
const (
	maxUnpacked      = 1 << 30
	maxUnpackedRatio = 100      // times the compressed size
	minUnpackedLimit = 64 << 20 // whatever the compressed size
)

// format is one way to compress a kernel or a module.
type format struct {
	name  string
	magic string
	// sized tells that Kbuild appends the uncompressed size to the payload of
	// a kernel image: four bytes, little-endian (scripts/Makefile.lib,
	// size_append). gzip does so by itself.
	sized  bool
	unpack func(data []byte, limit int) ([]byte, error)
}

// formats returns the table of known compressions. Magic numbers:
// Documentation/arch/x86/boot.rst, and lib/decompress.c.
func formats() []format {
	return []format{
		{"gzip", "\x1f\x8b", false, unpackGzip},
		{"xz", xzMagic, true, unpackXZ},
		{"zstd", "\x28\xb5\x2f\xfd", true, unpackZstd},
		{"lz4", "\x02\x21\x4c\x18", true, unpackLZ4},
		{"bzip2", "BZh", true, unpackBzip2},
		{"lzma", "\x5d\x00\x00", true, unpackLZMA},
		{"lzo", "\x89LZO\x00", true, refuseLZO},
	}
}

// formatOf finds the compression by the first bytes of data, or nil.
func formatOf(data []byte) *format {
	all := formats()
	for i := range all {
		if bytes.HasPrefix(data, []byte(all[i].magic)) {
			return &all[i]
		}
	}
	return nil
}

// Decompress unpacks a file that is compressed with gzip, xz, zstd, lz4 (the
// legacy frame that the kernel uses), bzip2 or lzma, which it tells by the
// first bytes. Anything else is returned as it is.
func Decompress(data []byte) ([]byte, error) {
	f := formatOf(data)
	if f == nil {
		return data, nil
	}
	out, err := f.unpack(data, unpackLimit(len(data)))
	if err != nil {
		return nil, fmt.Errorf("decompress %s: %w", f.name, err)
	}
	return out, nil
}

// unpackPayload unpacks the payload of a bzImage, which differs from a file by
// the size that Kbuild appends.
func unpackPayload(data []byte) ([]byte, error) {
	f := formatOf(data)
	if f == nil {
		return data, nil // boot.rst: the payload may be uncompressed
	}
	body, want := data, -1
	if f.sized {
		if len(data) < 4 {
			return nil, fmt.Errorf("decompress %s: payload of %d bytes is too short", f.name, len(data))
		}
		body = data[:len(data)-4]
		want = int(binary.LittleEndian.Uint32(data[len(data)-4:]))
	}
	out, err := f.unpack(body, unpackLimit(len(data)))
	if err != nil {
		return nil, fmt.Errorf("decompress %s: %w", f.name, err)
	}
	if want >= 0 && len(out) != want {
		return nil, fmt.Errorf("decompress %s: %d bytes came out, the payload says %d", f.name, len(out), want)
	}
	return out, nil
}

// unpackLimit bounds the output for an input of n bytes.
func unpackLimit(n int) int {
	return min(maxUnpacked, max(minUnpackedLimit, n*maxUnpackedRatio))
}

// errTooLarge says that the output passed its bound.
var errTooLarge = errors.New("the output is implausibly large for its input")

// readAll reads r to its end, at most limit bytes, into a buffer that starts at
// hint bytes.
func readAll(r io.Reader, hint, limit int) ([]byte, error) {
	var buf bytes.Buffer
	buf.Grow(min(max(hint, bytes.MinRead), limit))
	n, err := io.Copy(&buf, io.LimitReader(r, int64(limit)+1))
	if err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return nil, errors.New("truncated")
		}
		return nil, err
	}
	if n > int64(limit) {
		return nil, errTooLarge
	}
	return buf.Bytes(), nil
}

func unpackGzip(data []byte, limit int) ([]byte, error) {
	zr, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return readAll(zr, 5*len(data), limit)
}

func unpackBzip2(data []byte, limit int) ([]byte, error) {
	return readAll(bzip2.NewReader(bytes.NewReader(data)), 5*len(data), limit)
}

func unpackZstd(data []byte, limit int) ([]byte, error) {
	zr, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxMemory(uint64(limit)),
		zstd.WithDecoderMaxWindow(uint64(maxUnpacked/2))) // -22 --ultra asks for 128 MiB
	if err != nil {
		return nil, err
	}
	defer zr.Close()
	out, err := zr.DecodeAll(data, make([]byte, 0, min(5*len(data), limit)))
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return nil, errTooLarge
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("truncated")
	}
	return out, err
}

// unpackLZMA reads the older .lzma container, whose header is five bytes of
// properties and eight of size.
func unpackLZMA(data []byte, limit int) ([]byte, error) {
	dict, ok := u32(data, 1)
	if !ok {
		return nil, errors.New("truncated")
	}
	if int64(dict) > int64(limit) {
		return nil, errTooLarge // the decoder takes that much memory at once
	}
	zr, err := lzma.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return readAll(zr, 5*len(data), limit)
}

// lz4BlockSize is the size of every block but the last of a legacy frame,
// uncompressed, in bytes. Source: lz4's "Legacy frame" section, lib/lz4.
const lz4BlockSize = 8 << 20

// unpackLZ4 reads a legacy frame: after the magic, blocks that each begin with
// their compressed length. The general lz4 frame reader is not used because it
// takes what follows the last block for another one.
func unpackLZ4(data []byte, limit int) ([]byte, error) {
	const magicSize = 4
	var out []byte
	for off := magicSize; off < len(data); {
		n, ok := u32(data, off)
		block, inside := slice(data, off+4, int(n))
		if !ok || !inside {
			return nil, errors.New("truncated")
		}
		if len(out)+lz4BlockSize > limit {
			return nil, errTooLarge
		}
		// A block of n bytes cannot hold more than 255 bytes for each.
		room := min(lz4BlockSize, 255*len(block)+16)
		start := len(out)
		out = append(out, make([]byte, room)...)
		m, err := lz4.UncompressBlock(block, out[start:])
		if err != nil {
			return nil, fmt.Errorf("block at byte %d: %w", off, err)
		}
		out = out[:start+m]
		off += 4 + len(block)
	}
	return out, nil
}

// refuseLZO names what is missing.
func refuseLZO([]byte, int) ([]byte, error) {
	return nil, errors.New("lzo is not supported: unpack the image with scripts/extract-vmlinux and pass the vmlinux")
}
