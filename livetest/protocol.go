package livetest

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// frames is what the guest reported, decoded as it arrives. See script.go for the
// protocol. One goroutine writes; the results are read when it has finished.
type frames struct {
	began func(step int)
	ended func(step int, e stepEnd)

	mu    sync.Mutex
	buf   []byte // what is not yet decoded
	want  int    // bytes of contents that the last line announced, with their newline
	take  func(contents []byte)
	steps map[int]*stepEnd // begun ones
	log   *string          // nil: never came
	done  bool
	junk  []string // lines that are not of the protocol
	begin map[int]float64
}

// stepEnd is what the guest reported of one step.
type stepEnd struct {
	ended   bool
	exit    int
	output  string
	cut     int     // bytes of output that were left out
	seconds float64 // of the guest
}

func newFrames(began func(int), ended func(int, stepEnd)) *frames {
	return &frames{began: began, ended: ended, steps: map[int]*stepEnd{}, begin: map[int]float64{}}
}

func (f *frames) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buf = append(f.buf, b...)
	for {
		if f.take != nil {
			if len(f.buf) < f.want {
				return len(b), nil
			}
			contents, take := f.buf[:f.want-1], f.take
			f.buf, f.take = f.buf[f.want:], nil
			take(contents)
			continue
		}
		line, rest, ok := bytes.Cut(f.buf, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		f.buf = rest
		if err := f.line(string(line)); err != nil {
			f.junk = append(f.junk, fmt.Sprintf("%q: %v", line, err))
		}
	}
}

// line decodes one line of the protocol.
func (f *frames) line(line string) error {
	words := strings.Fields(line)
	if len(words) < 2 || words[0] != frameMark {
		return fmt.Errorf("not a line of the protocol")
	}
	nums, err := numbers(words[2:])
	if err != nil {
		return err
	}
	switch kind := words[1]; {
	case kind == "hello" && len(nums) == 0:
	case kind == "begin" && len(nums) == 2:
		i := int(nums[0])
		f.steps[i], f.begin[i] = &stepEnd{}, nums[1]
		f.began(i)
	case kind == "end" && len(nums) == 5 && f.steps[int(nums[0])] != nil:
		i := int(nums[0])
		e := f.steps[i]
		e.exit, e.seconds, e.cut = int(nums[1]), nums[2]-f.begin[i], int(nums[4])
		f.contents(int(nums[3]), func(b []byte) {
			e.output, e.ended = string(b), true
			f.ended(i, *e)
		})
	case kind == "log" && len(nums) == 1:
		f.contents(int(nums[0]), func(b []byte) {
			text := string(b)
			f.log = &text
		})
	case kind == "done" && len(nums) == 0:
		f.done = true
	default:
		return fmt.Errorf("not a line of the protocol")
	}
	return nil
}

// contents waits for size bytes and a newline, and hands the bytes to take.
func (f *frames) contents(size int, take func([]byte)) { f.want, f.take = size+1, take }

// numbers decodes numbers that are not negative.
func numbers(words []string) ([]float64, error) {
	var nums []float64
	for _, w := range words {
		n, err := strconv.ParseFloat(w, 64)
		if err != nil || n < 0 || n > 1<<31 {
			return nil, fmt.Errorf("%q is not a number", w)
		}
		nums = append(nums, n)
	}
	return nums, nil
}
