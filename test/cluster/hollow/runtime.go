package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	fake "k8s.io/cri-api/pkg/apis/testing"
	kubelet "k8s.io/kubelet/pkg/types"
)

// behaviour says by image what differs from a container that starts and stays.
type behaviour map[string]fate

// fate is what becomes of an image's containers.
type fate struct {
	// refused images cannot be pulled, stuck ones are pulled for ever.
	refused, stuck bool
	// exits is true where containers end with status 1, after that time.
	exits bool
	after time.Duration
}

func (b behaviour) refuse(image string) error {
	b[image] = fate{refused: true}
	return nil
}

func (b behaviour) hang(image string) error {
	b[image] = fate{stuck: true}
	return nil
}

func (b behaviour) exit(value string) error {
	image, after, found := strings.Cut(value, "=")
	if !found {
		return fmt.Errorf("want IMAGE=DURATION, got %q", value)
	}
	d, err := time.ParseDuration(after)
	if err != nil {
		return err
	}
	b[image] = fate{exits: true, after: d}
	return nil
}

// line is one line of the ledger.
type line struct {
	At time.Time `json:"at"`
	// Pod is its namespace and name.
	Pod string `json:"pod"`
	// Did is refused, started, exited or stopped.
	Did string `json:"did"`
	// Container is empty where an image was refused.
	Container string `json:"container,omitempty"`
	Image     string `json:"image"`
}

// ledger keeps what the kubelet asked for, in order.
type ledger struct {
	mu  sync.Mutex
	out io.Writer
}

func (l *ledger) write(entry line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	entry.At = time.Now()
	// A line that is not written is missed by the test that reads.
	_ = json.NewEncoder(l.out).Encode(entry)
}

// pretender is a container runtime in which every container runs from its start
// until it is stopped, unless its image's fate is another.
type pretender struct {
	*fake.FakeRuntimeService
	fates behaviour
	book  *ledger
}

func pretend(fates behaviour, book *ledger) *pretender {
	fake.FakePodSandboxIPs = []string{"127.0.0.1"}
	p := &pretender{FakeRuntimeService: fake.NewFakeRuntimeService(), fates: fates, book: book}
	p.FakeStatus = &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Status: true},
	}}
	return p
}

// StartContainer starts a container, and ends it where its image's do.
func (p *pretender) StartContainer(ctx context.Context, id string) error {
	if err := p.FakeRuntimeService.StartContainer(ctx, id); err != nil {
		return err
	}
	image := p.tell("started", id)
	switch f := p.fates[image]; {
	case !f.exits:
	case f.after == 0:
		p.end(id)
	default:
		time.AfterFunc(f.after, func() { p.end(id) })
	}
	return nil
}

// StopContainer notes what it stops.
func (p *pretender) StopContainer(ctx context.Context, id string, timeout int64) error {
	p.tell("stopped", id)
	return p.FakeRuntimeService.StopContainer(ctx, id, timeout)
}

// end has a running container exit with status 1.
func (p *pretender) end(id string) {
	p.Lock()
	c, ok := p.Containers[id]
	ok = ok && c.State == runtimeapi.ContainerState_CONTAINER_RUNNING
	if ok {
		c.State, c.ExitCode, c.Reason = runtimeapi.ContainerState_CONTAINER_EXITED, 1, "Error"
		c.FinishedAt = time.Now().UnixNano()
	}
	p.Unlock()
	if ok {
		p.tell("exited", id)
	}
}

// tell writes into the ledger what became of a container, and returns its image.
func (p *pretender) tell(did, id string) string {
	p.Lock()
	defer p.Unlock()
	c, ok := p.Containers[id]
	if !ok {
		return ""
	}
	labels, image := c.GetLabels(), c.GetImage().GetImage()
	p.book.write(line{
		Pod: labels[kubelet.KubernetesPodNamespaceLabel] + "/" + labels[kubelet.KubernetesPodNameLabel],
		Did: did, Container: labels[kubelet.KubernetesContainerNameLabel], Image: image,
	})
	return image
}

// images is the runtime's registry: it has every image but those refused.
func (p *pretender) images() *registry {
	return &registry{FakeImageService: fake.NewFakeImageService(), fates: p.fates, book: p.book}
}

type registry struct {
	*fake.FakeImageService
	fates behaviour
	book  *ledger
}

// PullImage pulls every image but those that are refused or stuck.
func (r *registry) PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, pod *runtimeapi.PodSandboxConfig) (string, error) {
	switch f := r.fates[image.GetImage()]; {
	case f.stuck:
		<-ctx.Done()
		return "", ctx.Err()
	case f.refused:
		m := pod.GetMetadata()
		r.book.write(line{Pod: m.GetNamespace() + "/" + m.GetName(), Did: "refused", Image: image.GetImage()})
		return "", fmt.Errorf("image %q: not found", image.GetImage())
	}
	return r.FakeImageService.PullImage(ctx, image, auth, pod)
}
