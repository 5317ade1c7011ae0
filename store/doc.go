// Package store keeps livepatches for the kernels of this machine, and decides
// which of them are loaded again at boot.
//
// It loads nothing itself: Restore is given what loads. Its callers hold the lock
// that serialises changes (livepatch.Lock). There is one folder a
// kernel release, with the modules and one manifest:
//
//	/var/lib/klpc/RELEASE/manifest.json
//	/var/lib/klpc/RELEASE/NAME-SHA256.ko    the first 16 digits
//
// The manifest is all there is to know, and it changes by rename(2) only. A
// module's file never changes: its name says what it holds. So a power cut at any
// moment leaves the manifest as it was, or as it was to become, and each module
// that it names; at most there is a file more, which the next change removes.
package store
