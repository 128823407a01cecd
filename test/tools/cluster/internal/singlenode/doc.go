// Package singlenode runs a whole cluster of one node on a Linux machine without
// changing the machine: Kubernetes' control plane (package apiserver), scheduler,
// kubelet and kube-proxy, with containerd and runc, and pods on a bridge.
//
// The cluster has its own network, mount, process, IPC and UTS namespaces. Its
// mounts, network links and processes end with the init process of these
// namespaces. Outside of them are only the data folder and the control groups below
// one name, which are removed at the end, and one port of the loopback interface,
// which leads to the API server.
package singlenode
