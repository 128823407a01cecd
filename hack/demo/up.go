package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	edgeSpace = "emissary"
	edgeName  = "emissary-ingress"
	edgeLabel = "app.kubernetes.io/name=" + edgeName
)

// errLeft says that clearing away went wrong too.
var errLeft = errors.New("something of the demo is left, try make demo-down")

// up does all of it, or leaves nothing.
func (d *demo) up(ctx context.Context) (err error) {
	if d.alive(ctx) {
		d.screen.print("The demo is up already. make demo-down ends it.")
		d.invite()
		return nil
	}
	if entries, err := os.ReadDir(d.folder); err == nil {
		d.screen.print("Clearing away what an earlier demo left")
		if err := d.clear(ctx, entries); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(d.folder, 0o700); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		d.screen.print("\nClearing away")
		entries, _ := os.ReadDir(d.folder) // clear says what is wrong with it
		if left := d.clear(context.WithoutCancel(ctx), entries); left != nil {
			err = fmt.Errorf("%w\n%w: %w", err, errLeft, left)
		}
	}()
	return d.steps(ctx)
}

// steps are what the user sees.
func (d *demo) steps(ctx context.Context) error {
	s := d.screen
	s.steps = 10

	s.step("Build Isthmus, kubectl, Helm, a Kubernetes control plane and istiod (minutes the first time, then kept)")
	if err := d.build(ctx); err != nil {
		return err
	}
	s.done()

	s.step("Start etcd, kube-apiserver and kube-controller-manager")
	server, err := d.start(ctx)
	if err != nil {
		return err
	}
	s.say("Kubernetes listens on %s", server)
	s.done()

	s.step("Start istiod, the certificate authority of the mesh")
	if err := d.mesh(ctx); err != nil {
		return fmt.Errorf("start istiod: %w", err)
	}
	s.done()

	s.step("Install Isthmus with Helm")
	if err := d.install(ctx, server); err != nil {
		return err
	}
	s.done()

	s.step("Apply Emissary to a namespace that says nothing: its pods stay as they are")
	before, err := d.untouched(ctx)
	if err != nil {
		return err
	}
	s.done()

	s.step("Label the namespace and roll the Deployment: its pods get their Istio identity")
	after, err := d.injected(ctx)
	if err != nil {
		return err
	}
	s.done()

	s.step("What was injected, and why")
	if err := d.explain(ctx, before, after); err != nil {
		return err
	}
	s.done()

	s.step("The Secret " + secretName + ": issued by istiod, checked and published by the controller")
	if err := d.published(ctx); err != nil {
		return err
	}
	s.done()

	s.step("It heals: delete the Secret, then put a key into it that is not its own")
	if err := d.healed(ctx); err != nil {
		return err
	}
	s.done()

	s.step("What is wrong is said: a value that is not allowed is denied, a misspelt key is warned of")
	if err := d.wrong(ctx); err != nil {
		return err
	}
	s.done()
	if err := ctx.Err(); err != nil { // interrupted after the last command
		return err
	}

	s.print("\n" + s.paint(bold, fmt.Sprintf("The demo is up, after %s. It stays until make demo-down.", seconds(time.Since(s.begun)))))
	d.invite()
	return nil
}

func (d *demo) install(ctx context.Context, server string) error {
	d.screen.command("helm install " + release + " charts/isthmus --namespace " + systemSpace + " --create-namespace")
	if _, err := d.output(ctx, "helm", "install", release, "charts/isthmus", "--namespace", systemSpace, "--create-namespace"); err != nil {
		return err
	}
	if err := d.show(ctx, "helm", "list", "--namespace", systemSpace); err != nil {
		return err
	}
	d.screen.say("There is no node here to run the chart's pods: the same controller and webhook start as\n"+
		"processes, with the chart's flags, settings and ServiceAccounts (the controller looks at its Secrets\n"+
		"every %s here, not every half minute).", lookEvery)
	controller, err := d.serve(ctx, server, controllerName)
	if err != nil {
		return fmt.Errorf("start the controller: %w", err)
	}
	d.screen.say("The controller is ready: process %d. It keeps the edges' Secrets, and the CA of the webhook's certificate", controller.PID)
	webhook, err := d.serve(ctx, server, webhookName)
	if err != nil {
		return fmt.Errorf("start the webhook: %w", err)
	}
	d.screen.say("The webhook is ready: process %d, reviews on 127.0.0.1:%d", webhook.PID, webhook.Port)
	return nil
}

// untouched applies the samples without opting in, and returns a pod.
func (d *demo) untouched(ctx context.Context) (pod, error) {
	if err := d.show(ctx, "kubectl", "create", "namespace", edgeSpace); err != nil {
		return nil, err
	}
	if err := d.show(ctx, "kubectl", "apply", "-f", "samples/emissary"); err != nil {
		return nil, err
	}
	found, err := d.edge(ctx, "")
	if err != nil {
		return nil, err
	}
	if found.text("metadata", "annotations", "isthmus.dev/status") != "" {
		return nil, fmt.Errorf("pod %s was injected in a namespace without the label", found.name())
	}
	if err := d.list(ctx); err != nil {
		return nil, err
	}
	d.screen.say("The webhook was not even asked: %s", d.admissions(ctx))
	return found, nil
}

// injected opts in and returns a pod that was made since.
func (d *demo) injected(ctx context.Context) (pod, error) {
	if err := d.show(ctx, "kubectl", "label", "namespace", edgeSpace, "isthmus.dev/injection=enabled"); err != nil {
		return nil, err
	}
	if err := d.show(ctx, "kubectl", "--namespace", edgeSpace, "rollout", "restart", "deployment", edgeName); err != nil {
		return nil, err
	}
	found, err := d.edge(ctx, ",isthmus.dev/injected")
	if err != nil {
		return nil, fmt.Errorf("%w; the webhook's log ends with\n%s", err, d.lastLog(webhookName))
	}
	if err := d.list(ctx); err != nil {
		return nil, err
	}
	d.screen.say("(Pending: there is no node. With one, the old pods go when the new one is ready.)")
	return found, nil
}

// edge waits for a pod of the edge that carries the further label.
func (d *demo) edge(ctx context.Context, label string) (pod, error) {
	var found pod
	err := await(ctx, 30*time.Second, func() error {
		out, err := d.output(ctx, "kubectl", "--namespace", edgeSpace, "get", "pods", "--selector", edgeLabel+label, "--output", "json")
		if err != nil {
			return err
		}
		pods, err := parsePods(out)
		if err != nil {
			return err
		}
		if len(pods) == 0 {
			return fmt.Errorf("no pod with label %s%s appeared in namespace %s", edgeLabel, label, edgeSpace)
		}
		found = pods[0]
		return nil
	})
	return found, err
}

func (d *demo) list(ctx context.Context) error {
	return d.show(ctx, "kubectl", "--namespace", edgeSpace, "get", "pods", "--label-columns", "isthmus.dev/injected")
}

// wrong shows what a user sees who gets it wrong.
func (d *demo) wrong(ctx context.Context) error {
	if err := d.show(ctx, "kubectl", "apply", "-f", "samples/pods/wrong-mode.yaml"); err == nil {
		return errors.New("a pod with a mode that there is not was admitted")
	} else if ctx.Err() != nil {
		return err
	}
	return d.show(ctx, "kubectl", "apply", "--dry-run=server", "-f", "samples/pods/misspelt-key.yaml")
}
