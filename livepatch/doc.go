// Package livepatch is the side of klpc that runs on the patched system: it
// reads which livepatches are loaded and what they do, checks whether one more
// can be loaded, and loads, disables, reverses, forces and unloads them.
//
// It builds no livepatches, and it keeps none: what is to be loaded at boot is
// not its business. Reading goes through an fs.FS, writing through System, so
// that both can be tested on recordings.
//
// Sources: Documentation/ABI/testing/sysfs-kernel-livepatch,
// Documentation/livepatch/livepatch.rst and kernel/livepatch of Linux 6.1 to 7.x.
package livepatch
