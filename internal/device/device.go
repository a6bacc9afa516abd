// Package device knows of the devices that come and go: it tells when the kernel
// or udev, an X server or a sound server says that something did (watch.go),
// under which node a camera is now that is named by what stays of it (camera.go),
// and which process holds a device (holder.go).
//
// It hides netlink's uevents, inotify, sysfs and procfs. It opens no device, needs
// neither udev nor privileges, and asks nothing of GStreamer. A [Watcher] has one
// goroutine for what it tells, and one for each of its two ears.
package device
