//go:build linux

package singlenode

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/apiserver"
	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/cgroup"
)

// InsideCommand is the subcommand of this program that runs Inside. Its only
// argument is the data folder.
const InsideCommand = "inside"

// Cluster is a running cluster of one node, as seen outside of its namespaces.
type Cluster struct {
	*apiserver.DataFolder
	listener    net.Listener
	initProcess *exec.Cmd // the init process of the namespaces
	ended       chan struct{}
	failed      chan error
	stopOnce    sync.Once
}

// Start starts a cluster of one node and returns when pods can run on it. It reports
// its steps on progress. It must be called as root, on the main thread. If it fails,
// it leaves nothing behind. kubeconfig is an additional file for the admin's
// kubeconfig; empty means none.
func Start(ctx context.Context, o Options, kubeconfig string, progress io.Writer) (*Cluster, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a node needs root: it mounts file systems and creates control groups and network namespaces")
	}
	dataFolder, err := apiserver.LockDataFolder(o.Folder, kubeconfig, true)
	if err != nil {
		return nil, err
	}
	o.Folder = dataFolder.Folder()
	o.CGroup = fmt.Sprintf("isthmus-%d", os.Getpid())
	c := &Cluster{DataFolder: dataFolder, ended: make(chan struct{}), failed: make(chan error, 1)}
	if err := c.start(ctx, o, progress); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, o Options, progress io.Writer) error {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.listener = listener
	o.Port = listener.Addr().(*net.TCPAddr).Port
	if err := o.write(); err != nil {
		return err
	}
	if err := c.RecordCGroup(o.CGroup); err != nil {
		return err
	}
	if err := cgroup.Create(o.CGroup); err != nil {
		return err
	}
	endpoint, err := c.startInside(ctx, o, progress)
	if err != nil {
		return err
	}
	go forward(listener, "unix", o.path(apiSocket))
	return c.SetEndpoint(endpoint)
}

// startInside starts the init process of the namespaces and waits for the endpoint
// that it prints.
func (c *Cluster) startInside(ctx context.Context, o Options, progress io.Writer) (apiserver.Endpoint, error) {
	program, err := os.Executable()
	if err != nil {
		return apiserver.Endpoint{}, err
	}
	c.initProcess = exec.Command(program, InsideCommand, o.Folder)
	c.initProcess.Stderr = progress
	c.initProcess.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Setpgid:    true,
		Pdeathsig:  syscall.SIGKILL,
	}
	out, err := c.initProcess.StdoutPipe()
	if err != nil {
		return apiserver.Endpoint{}, err
	}
	if err := c.initProcess.Start(); err != nil {
		c.initProcess = nil
		return apiserver.Endpoint{}, fmt.Errorf("create namespaces for the node (this needs root with CAP_SYS_ADMIN): %w", err)
	}
	if err := c.RecordChild(apiserver.NewChild("node", c.initProcess.Process.Pid)); err != nil {
		return apiserver.Endpoint{}, err
	}
	defer context.AfterFunc(ctx, func() { _ = c.initProcess.Process.Kill() })()
	var endpoint apiserver.Endpoint
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &endpoint)
	}
	go c.reportEnd()
	if err != nil {
		<-c.ended
		if ctx.Err() != nil {
			return endpoint, context.Cause(ctx)
		}
		return endpoint, errors.New("the node did not start; its output above says why")
	}
	endpoint.DataDir = o.Folder
	return endpoint, nil
}

// reportEnd reports the end of the init process, with which every process of its
// namespaces ends.
func (c *Cluster) reportEnd() {
	err := c.initProcess.Wait()
	close(c.ended)
	c.failed <- fmt.Errorf("the node ended: %w", errors.Join(err, errors.New("its output above says why")))
}

// Failed returns a channel that receives an error if the cluster ends by itself.
func (c *Cluster) Failed() <-chan error { return c.failed }

// Stop ends every process of the namespaces, and removes the data folder and the
// control groups.
func (c *Cluster) Stop() (err error) {
	c.stopOnce.Do(func() {
		if c.listener != nil {
			_ = c.listener.Close()
		}
		if c.initProcess != nil && c.initProcess.Process != nil {
			_ = c.initProcess.Process.Kill() // the kernel kills all other processes of the namespace with it
			<-c.ended
		}
		err = c.Release()
	})
	return err
}
