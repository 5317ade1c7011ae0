// Package vm boots a kernel in QEMU with an initramfs that is made on the spot.
//
// It does not know what the guest does: it hands out what the guest prints on its
// two serial ports, and says how the guest ended.
//
// Formats: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst
// for the initramfs, Documentation/admin-guide/kernel-parameters.txt for the
// command line, and QEMU's qemu-system-x86_64(1).
package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/klpc/klpc/internal/run"
)

// Accel says what executes the guest's instructions.
type Accel string

const (
	// TCG is QEMU's translator: it works everywhere.
	TCG Accel = "tcg"
	// KVM is the processor itself.
	KVM Accel = "kvm"
	// Auto tries KVM where /dev/kvm can be opened, and takes TCG if the guest
	// gives no sign of life there.
	Auto Accel = "auto"
)

// ParseAccel reads the name of an accelerator.
func ParseAccel(s string) (Accel, error) {
	if a := Accel(s); slices.Contains([]Accel{TCG, KVM, Auto}, a) {
		return a, nil
	}
	return "", fmt.Errorf("unknown accelerator %q: tcg, kvm or auto", s)
}

// Defaults of Config.
const (
	defaultQEMU     = "qemu-system-x86_64"
	defaultMemoryMB = 512
	defaultCPUs     = 2
)

const (
	// silenceAuto is how long a guest on KVM may print nothing, before it has
	// first spoken on its port, until TCG takes over. Kernels print within a second.
	silenceAuto = 5 * time.Second
	// silenceKVM is the same where KVM was asked for and nothing can take over.
	silenceKVM = 30 * time.Second
	// killGrace is how long a killed QEMU may take to go. One that hangs inside
	// /dev/kvm cannot be killed at all: it is left behind rather than waited for.
	killGrace = 10 * time.Second
)

// Config is a machine to boot.
type Config struct {
	Kernel string // path of a bzImage
	Initrd []byte // see Initramfs
	Append string // added to the kernel command line
	// Disks are paths of raw disk images: /dev/vda, /dev/vdb and so on, once the
	// guest has virtio_pci and virtio_blk. What the guest has written and synced
	// is there for the next boot.
	Disks    []string
	Accel    Accel // empty: Auto
	MemoryMB int   // MiB; zero: 512
	CPUs     int   // zero: 2
	// Timeout is how long the guest may run; zero: without limit.
	Timeout time.Duration
	// Console, if set, receives what the guest prints on its console, ttyS0, as it comes.
	Console io.Writer
	// Port, if set, receives what the guest writes to its second serial port,
	// ttyS1, as it comes. Kernel messages never go there.
	Port io.Writer
	QEMU string // the program; empty: qemu-system-x86_64
}

// End says how a guest ended.
type End string

const (
	// Stopped is a guest that powered off, rebooted or panicked.
	Stopped End = "stopped"
	// TimedOut is a guest that still ran when its time was over.
	TimedOut End = "timed out"
)

// Result is what a guest left behind.
type Result struct {
	Accel Accel    // what it ran on: TCG or KVM
	Notes []string // why KVM was not used though Auto tried it
	End   End
	Spoke bool // whether the guest ever wrote to its second serial port
	// Console is the end of what the guest printed on its console.
	Console []string
	Wall    time.Duration
}

// Boot runs a machine until the guest stops or its time is over. An error means
// that the machine could not be run, or that ctx ended; a guest that hangs or
// panics is a result. When Boot returns, QEMU is gone and no file is left.
func Boot(ctx context.Context, c Config) (*Result, error) {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	var notes []string
	first := c.Accel
	if c.Accel == Auto {
		if err := kvmUsable(); err != nil {
			notes = append(notes, fmt.Sprintf("KVM not tried: %v", err))
			first = TCG
		} else {
			first = KVM
		}
	}
	res, err := bootOnce(ctx, c, first, silenceLimit(c.Accel, first))
	if c.Accel == Auto && first == KVM && err == nil && c.Port != nil && !res.Spoke {
		err = &noLifeError{first, errors.New("the guest stopped before it said anything")}
	}
	var dead *noLifeError
	if c.Accel == Auto && first == KVM && errors.As(err, &dead) {
		notes = append(notes, fmt.Sprintf("KVM did not work, took TCG: %v", err))
		res, err = bootOnce(ctx, c, TCG, 0)
	}
	if err != nil {
		return nil, err
	}
	res.Notes = notes
	return res, nil
}

// silenceLimit is how long a guest on one accelerator may be silent, where asked
// was asked for; zero: for ever. TCG on a busy host takes its time.
func silenceLimit(asked, accel Accel) time.Duration {
	switch {
	case accel != KVM:
		return 0
	case asked == Auto:
		return silenceAuto
	}
	return silenceKVM
}

func (c Config) withDefaults() Config {
	if c.QEMU == "" {
		c.QEMU = defaultQEMU
	}
	if c.Accel == "" {
		c.Accel = Auto
	}
	if c.MemoryMB == 0 {
		c.MemoryMB = defaultMemoryMB
	}
	if c.CPUs == 0 {
		c.CPUs = defaultCPUs
	}
	return c
}

func (c Config) check() error {
	var errs []error
	if _, err := exec.LookPath(c.QEMU); err != nil {
		errs = append(errs, fmt.Errorf("QEMU not found (install the package qemu-system-x86): %w", err))
	}
	if f, err := os.Open(c.Kernel); err != nil {
		errs = append(errs, fmt.Errorf("kernel image: %w", err))
	} else {
		f.Close()
	}
	if _, err := ParseAccel(string(c.Accel)); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// kvmUsable reports why KVM cannot even be tried.
func kvmUsable() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// noLifeError is a guest of which nothing was heard on its port: the accelerator may
// be at fault.
type noLifeError struct {
	accel Accel
	why   error
}

func (e *noLifeError) Error() string { return fmt.Sprintf("%s: %v", e.accel, e.why) }
func (e *noLifeError) Unwrap() error { return e.why }

// errTimeout is the cause of the end of a guest whose time is over.
var errTimeout = errors.New("the guest's time is over")

// bootOnce runs the machine on one accelerator. silence is how long the guest may
// print nothing before it first speaks on its port; zero: as long as it likes.
func bootOnce(ctx context.Context, c Config, accel Accel, silence time.Duration) (*Result, error) {
	initrd, err := memoryFile("initrd", c.Initrd)
	if err != nil {
		return nil, fmt.Errorf("initrd: %w", err)
	}
	defer initrd.Close()
	port, err := newPort()
	if err != nil {
		return nil, fmt.Errorf("serial port: %w", err)
	}
	defer port.close()

	guest, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if c.Timeout > 0 {
		defer time.AfterFunc(c.Timeout, func() { cancel(errTimeout) }).Stop()
	}
	life := newLife(cancel, silence)
	defer life.stop()
	port.copyTo(life.port(c.Port))

	last := &tail{}
	console := io.Writer(last)
	if c.Console != nil {
		console = io.MultiWriter(last, c.Console)
	}
	start := time.Now()
	err = doOrLeave(guest, run.Cmd{
		Args:   arguments(c, accel, pathOf(initrd), pathOf(port.write)),
		Stdout: console,
		Log:    life,
	})
	port.close()
	res := &Result{Accel: accel, End: Stopped, Spoke: life.spoke(), Console: last.lines(), Wall: time.Since(start)}
	switch cause := context.Cause(guest); {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("boot %s: %w", c.Kernel, ctx.Err())
	case errors.Is(cause, errTimeout):
		res.End = TimedOut
	case cause != nil:
		return nil, &noLifeError{accel, cause}
	case err != nil && !life.spoke():
		return nil, &noLifeError{accel, err}
	case err != nil:
		return nil, fmt.Errorf("boot %s: %w", c.Kernel, err)
	}
	return res, nil
}

// doOrLeave runs a program to its end, but does not wait for ever for one that
// was killed and does not go.
func doOrLeave(ctx context.Context, c run.Cmd) error {
	done := make(chan error, 1)
	go func() {
		_, err := run.Do(ctx, c)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(killGrace):
		return fmt.Errorf("%s was killed and does not go: %w", c.Args[0], ctx.Err())
	}
}

// arguments is QEMU's command line.
func arguments(c Config, accel Accel, initrd, port string) []string {
	// TCG: every feature that QEMU can translate, such as SMAP, but not
	// five-level page tables, which slow each of its page walks down. No QEMU
	// release up to 7.2 translates CET, so that endbr64 is never enforced.
	cpu := "max,la57=off"
	// panic=-1: reboot at once, which -no-reboot turns into the end of QEMU.
	// tsc=unstable: take the HPET's time instead. On a busy host Linux 6.12
	// calibrates the translated TSC so wrongly that its clock ran 20 times too fast.
	// no_timer_check: the kernel counts the ticks of a timer while it busily
	// loops; on a busy host none comes in time, and it panics ("IO-APIC + timer
	// doesn't work!"). On KVM it does not check either.
	kernel := "console=ttyS0 panic=-1 tsc=unstable no_timer_check"
	// One thread for all processors: with one each, a processor may run into the
	// int3 that another has just put in and taken out of the code again
	// (text_poke_bp, at the start of a transition on 6.12), and the kernel panics.
	emulator := "tcg,thread=single"
	if accel == KVM {
		emulator, cpu = "kvm", "host"
		kernel = "console=ttyS0 panic=-1"
	}
	if c.Append != "" {
		kernel += " " + c.Append
	}
	args := []string{c.QEMU,
		"-accel", emulator, "-cpu", cpu,
		"-m", fmt.Sprint(c.MemoryMB), "-smp", fmt.Sprint(c.CPUs),
		"-kernel", c.Kernel, "-initrd", initrd,
		"-append", kernel,
		"-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot",
		"-serial", "stdio",
		"-chardev", "file,id=port,path=" + port, "-serial", "chardev:port",
	}
	for _, d := range c.Disks {
		// A comma in a path is doubled, see "-drive" in qemu-system-x86_64(1).
		args = append(args, "-drive", "if=virtio,format=raw,file="+strings.ReplaceAll(d, ",", ",,"))
	}
	return args
}
