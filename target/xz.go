package target

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"

	"github.com/ulikunitz/xz/lzma"
)

// The kernel's own xz images pass through the x86 branch filter before LZMA2
// (scripts/xz_wrap.sh), which no Go library undoes. So the container is taken
// apart here, LZMA2 is left to the library, and the filter is undone at the
// end. Chunk headers are read first, because they tell how long the block is
// and how much will come out: no memory is taken on the word of the dictionary
// size alone. Source: The .xz File Format 1.2.1, sections 2 to 5.

const xzMagic = "\xfd7zXZ\x00"

const (
	xzHeaderSize  = 12   // stream header, bytes
	xzFilterX86   = 0x04 // branch converter for x86
	xzFilterLZMA2 = 0x21
	xzCheckNone   = 0x00
	xzCheckCRC32  = 0x01
	xzCheckCRC64  = 0x04
	xzCheckSHA256 = 0x0a
)

// xzBlock is a block's header.
type xzBlock struct {
	size int  // of the header, bytes
	dict int  // bytes
	x86  bool // the branch filter is to be undone
}

func unpackXZ(data []byte, limit int) ([]byte, error) {
	head, ok := slice(data, 0, xzHeaderSize)
	if !ok {
		return nil, errors.New("truncated")
	}
	if crc32.ChecksumIEEE(head[6:8]) != binary.LittleEndian.Uint32(head[8:]) {
		return nil, errors.New("stream header: checksum does not match")
	}
	check, checkSize, err := xzCheck(head[7])
	if err != nil {
		return nil, err
	}
	var out []byte
	for off := xzHeaderSize; ; {
		first, ok := slice(data, off, 1)
		if !ok {
			return nil, errors.New("truncated")
		}
		if first[0] == 0 { // the index: no more blocks
			return out, nil
		}
		var n int
		out, n, err = appendXZBlock(out, data[off:], limit, check, checkSize)
		if err != nil {
			return nil, fmt.Errorf("block at byte %d: %w", off, err)
		}
		off += n
	}
}

// xzCheck returns the function that checks a block's content, nil if there is
// none here, and the size of the stored value in bytes.
func xzCheck(flags byte) (check func(content, want []byte) bool, size int, err error) {
	switch flags {
	case xzCheckNone:
		return nil, 0, nil
	case xzCheckCRC32:
		return func(content, want []byte) bool {
			return crc32.ChecksumIEEE(content) == binary.LittleEndian.Uint32(want)
		}, 4, nil
	case xzCheckCRC64:
		return func(content, want []byte) bool {
			return crc64.Checksum(content, crc64.MakeTable(crc64.ECMA)) == binary.LittleEndian.Uint64(want)
		}, 8, nil
	case xzCheckSHA256:
		return nil, 32, nil
	}
	return nil, 0, fmt.Errorf("stream header: unknown check %#x", flags)
}

// appendXZBlock unpacks the block at the start of data and tells how many bytes
// it takes, with padding and check.
func appendXZBlock(out, data []byte, limit int, check func(content, want []byte) bool, checkSize int) ([]byte, int, error) {
	head, err := readXZBlock(data)
	if err != nil {
		return nil, 0, err
	}
	packed, unpacked, err := lzma2Size(data[head.size:])
	if err != nil {
		return nil, 0, err
	}
	if unpacked > limit-len(out) {
		return nil, 0, errTooLarge
	}
	end := (head.size + packed + 3) &^ 3
	want, ok := slice(data, end, checkSize)
	if !ok {
		return nil, 0, errors.New("truncated")
	}
	config := lzma.Reader2Config{DictCap: max(lzma.MinDictCap, min(head.dict, unpacked))}
	zr, err := config.NewReader2(bytes.NewReader(data[head.size : head.size+packed]))
	if err != nil {
		return nil, 0, err
	}
	content, err := readAll(zr, unpacked+bytes.MinRead, unpacked)
	if err != nil {
		return nil, 0, err
	}
	if len(content) != unpacked {
		return nil, 0, errors.New("truncated")
	}
	if head.x86 {
		undoX86Filter(content)
	}
	if check != nil && !check(content, want) {
		return nil, 0, errors.New("checksum does not match")
	}
	if out == nil {
		return content, end + checkSize, nil
	}
	return append(out, content...), end + checkSize, nil
}

// readXZBlock reads a block header: its filters, last one LZMA2.
func readXZBlock(data []byte) (xzBlock, error) {
	b := xzBlock{size: (int(data[0]) + 1) * 4}
	head, ok := slice(data, 0, b.size)
	if !ok {
		return b, errors.New("truncated")
	}
	body := head[:b.size-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(head[b.size-4:]) {
		return b, errors.New("block header: checksum does not match")
	}
	flags := body[1]
	rest := body[2:]
	for _, sized := range []byte{0x40, 0x80} { // compressed, uncompressed size
		if flags&sized != 0 {
			_, n := binary.Uvarint(rest)
			if n <= 0 {
				return b, errors.New("block header: bad size")
			}
			rest = rest[n:]
		}
	}
	count := int(flags&3) + 1
	for i := range count {
		id, n := binary.Uvarint(rest)
		if n <= 0 {
			return b, errors.New("block header: bad filter")
		}
		rest = rest[n:]
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return b, errors.New("block header: bad filter")
		}
		props := rest[n : n+int(size)]
		rest = rest[n+int(size):]
		if err := b.addFilter(id, props, i == count-1); err != nil {
			return b, err
		}
	}
	return b, nil
}

// addFilter notes one filter of the chain.
func (b *xzBlock) addFilter(id uint64, props []byte, last bool) error {
	switch {
	case id == xzFilterLZMA2 && last && len(props) == 1 && props[0] <= 40:
		d := uint(props[0])
		b.dict = min(int(2|d&1)<<(d/2+11), maxUnpacked)
		return nil
	case id == xzFilterX86 && !last && !b.x86 && len(props) == 0:
		b.x86 = true
		return nil
	}
	return fmt.Errorf("block header: filter %#x is not supported", id)
}

// lzma2Size adds up chunk headers: how many bytes the LZMA2 stream at the start
// of data takes and how many come out of it.
func lzma2Size(data []byte) (packed, unpacked int, err error) {
	for {
		head, ok := slice(data, packed, 1)
		if !ok {
			return 0, 0, errors.New("truncated")
		}
		control := head[0]
		if control == 0 {
			return packed + 1, unpacked, nil
		}
		var n int // header and content, bytes
		switch {
		case control >= 0x80: // LZMA chunk
			h, ok := slice(data, packed, 5)
			if !ok {
				return 0, 0, errors.New("truncated")
			}
			unpacked += int(control&0x1f)<<16 + int(h[1])<<8 + int(h[2]) + 1
			n = 5 + int(h[3])<<8 + int(h[4]) + 1
			if control >= 0xc0 { // with new properties
				n++
			}
		case control <= 2: // uncompressed chunk
			h, ok := slice(data, packed, 3)
			if !ok {
				return 0, 0, errors.New("truncated")
			}
			size := int(h[1])<<8 + int(h[2]) + 1
			unpacked += size
			n = 3 + size
		default:
			return 0, 0, fmt.Errorf("unknown LZMA2 chunk %#x", control)
		}
		if packed += n; packed > len(data) {
			return 0, 0, errors.New("truncated")
		}
	}
}

// undoX86Filter turns the absolute targets of call (e8) and jmp (e9) back into
// distances from the next instruction, in place.
//
// The filter converts a target only where its top byte is 00 or ff, as those of
// near branches are, and where the branch byte is not likely to be part of
// another instruction's operand: recent holds one bit for each of the bytes
// before, set where an unconverted branch byte stood. If such a byte lies within
// the operand in a place where the conversion would have hidden it, the operand
// is turned once more. Source: the x86 filter of the .xz format, section 5.3.2.
func undoX86Filter(b []byte) {
	isFar := func(c byte) bool { return c == 0x00 || c == 0xff }
	// By recent branch bytes 1 to 3 bytes back, oldest highest: whether the
	// operand may be converted, and which of its bytes decides on turning again.
	allowed := [8]bool{0: true, 1: true, 2: true, 4: true}
	deciding := [8]uint{0, 1, 2, 2, 3, 3, 3, 3}

	var recent uint32 // bit 0: this byte, before the shift for the next
	last := -6        // where the last branch byte stood
	for i := 0; i+5 <= len(b); {
		if b[i]&0xfe != 0xe8 {
			i++
			continue
		}
		if since := i - last; since > 5 {
			recent = 0
		} else {
			for range since {
				recent = recent & 0x77 << 1
			}
		}
		last = i
		top := b[i+4]
		back := recent >> 1
		if !isFar(top) || back >= 0x10 || !allowed[back&7] {
			recent |= 1
			if isFar(top) {
				recent |= 0x10
			}
			i++
			continue
		}
		target := binary.LittleEndian.Uint32(b[i+1:])
		next := uint32(i + 5)
		distance := target - next
		// Once is enough for what an encoder writes; the bound is for the rest.
		for turns := 0; recent != 0 && turns < 4; turns++ {
			shift := deciding[back&7] * 8
			if !isFar(byte(distance >> (24 - shift))) {
				break
			}
			distance = distance ^ (1<<(32-shift) - 1) - next
		}
		// The top byte repeats bit 24, the sign.
		distance = distance&0x01ffffff | -(distance>>24&1)<<24
		binary.LittleEndian.PutUint32(b[i+1:], distance)
		recent = 0
		i += 5
	}
}
