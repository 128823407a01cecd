// Package singlenode makes a whole cluster of one node on a Linux machine, beside
// everything else that runs there: Kubernetes' control plane (package apiserver),
// scheduler, kubelet and kube-proxy over containerd and runc, with pods on a
// bridge, in network, mount, process, IPC and UTS namespaces of their own. What is
// mounted, plugged and started in there ends with its first process. Outside are
// only the data folder, the control groups below one name, which are removed at
// the end, and one port of the loopback, that leads to the API server.
package singlenode
