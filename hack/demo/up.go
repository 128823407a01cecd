package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	edgeNamespace = "emissary"
	edgeName      = "emissary-ingress"
	edgeLabel     = "app.kubernetes.io/name=" + edgeName
)

// errCleanup means that the cleanup after an error did not succeed.
var errCleanup = errors.New("the cleanup is incomplete: run make demo-down")

// up runs the whole demo, and cleans up after an error.
func (d *demo) up(ctx context.Context) (err error) {
	if d.isUp(ctx) {
		d.screen.println("The demo is already running. Stop it with make demo-down.")
		d.printHints()
		return nil
	}
	if entries, err := os.ReadDir(d.folder); err == nil {
		d.screen.println("Removing the files of an earlier demo")
		if err := d.removeAll(ctx, entries); err != nil {
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
		d.screen.println("\nCleaning up")
		entries, _ := os.ReadDir(d.folder) // removeAll reports a folder that cannot be read
		if left := d.removeAll(context.WithoutCancel(ctx), entries); left != nil {
			err = fmt.Errorf("%w\n%w: %w", err, errCleanup, left)
		}
	}()
	return d.runSteps(ctx)
}

// runSteps runs the steps that the user sees.
func (d *demo) runSteps(ctx context.Context) error {
	s := d.screen
	s.steps = 10

	s.step("Build Isthmus, kubectl, Helm, a Kubernetes control plane and istiod (minutes the first time, then cached)")
	if err := d.buildPrograms(ctx); err != nil {
		return err
	}
	s.stepDone()

	s.step("Start etcd, kube-apiserver and kube-controller-manager")
	server, err := d.startControlPlane(ctx)
	if err != nil {
		return err
	}
	s.printf("Kubernetes listens on %s", server)
	s.stepDone()

	s.step("Start istiod, the certificate authority of the mesh")
	if err := d.startMesh(ctx); err != nil {
		return fmt.Errorf("start istiod: %w", err)
	}
	s.stepDone()

	s.step("Install Isthmus with Helm")
	if err := d.installIsthmus(ctx, server); err != nil {
		return err
	}
	s.stepDone()

	s.step("Apply Emissary to a namespace without a label: its pods are not changed")
	before, err := d.applyWithoutLabel(ctx)
	if err != nil {
		return err
	}
	s.stepDone()

	s.step("Label the namespace and restart the Deployment: its pods get an Istio identity")
	after, err := d.labelAndRestart(ctx)
	if err != nil {
		return err
	}
	s.stepDone()

	s.step("What was injected, and why")
	if err := d.explainInjection(ctx, before, after); err != nil {
		return err
	}
	s.stepDone()

	s.step("The Secret " + secretName + ": issued by istiod, checked and published by the controller")
	if err := d.showSecret(ctx); err != nil {
		return err
	}
	s.stepDone()

	s.step("The controller repairs the Secret: after it is deleted, and after its key is replaced")
	if err := d.showRepair(ctx); err != nil {
		return err
	}
	s.stepDone()

	s.step("The webhook denies a value that is not allowed, and warns about a misspelt key")
	if err := d.showDenialAndWarning(ctx); err != nil {
		return err
	}
	s.stepDone()
	if err := ctx.Err(); err != nil { // interrupted after the last command
		return err
	}

	s.println("\n" + s.colorize(bold, fmt.Sprintf("The demo is running, after %s. Stop it with make demo-down.", seconds(time.Since(s.started)))))
	d.printHints()
	return nil
}

func (d *demo) installIsthmus(ctx context.Context, server string) error {
	d.screen.command("helm install " + release + " charts/isthmus --namespace " + systemNamespace + " --create-namespace")
	if _, err := d.run(ctx, "helm", "install", release, "charts/isthmus", "--namespace", systemNamespace, "--create-namespace"); err != nil {
		return err
	}
	if err := d.runAndShow(ctx, "helm", "list", "--namespace", systemNamespace); err != nil {
		return err
	}
	d.screen.printf("There is no node here to run the chart's pods: the same controller and webhook start as\n" +
		"processes, with the chart's flags, settings and ServiceAccounts.")
	controller, err := d.startDeployment(ctx, server, controllerName)
	if err != nil {
		return fmt.Errorf("start the controller: %w", err)
	}
	d.screen.printf("The controller is ready: process %d. It publishes the edges' Secrets, and rotates the CA of the webhook's certificate", controller.PID)
	webhook, err := d.startDeployment(ctx, server, webhookName)
	if err != nil {
		return fmt.Errorf("start the webhook: %w", err)
	}
	d.screen.printf("The webhook is ready: process %d, reviews on 127.0.0.1:%d", webhook.PID, webhook.Port)
	return nil
}

// applyWithoutLabel applies the samples to a namespace without the label, and returns a
// pod.
func (d *demo) applyWithoutLabel(ctx context.Context) (pod, error) {
	if err := d.runAndShow(ctx, "kubectl", "create", "namespace", edgeNamespace); err != nil {
		return nil, err
	}
	if err := d.runAndShow(ctx, "kubectl", "apply", "-f", "samples/emissary"); err != nil {
		return nil, err
	}
	found, err := d.waitForEdgePod(ctx, "")
	if err != nil {
		return nil, err
	}
	if found.text("metadata", "annotations", "isthmus.dev/status") != "" {
		return nil, fmt.Errorf("pod %s was injected in a namespace without the label", found.name())
	}
	if err := d.listPods(ctx); err != nil {
		return nil, err
	}
	d.screen.printf("The API server sent no review to the webhook: %s", d.admissionMetric(ctx))
	return found, nil
}

// labelAndRestart labels the namespace, restarts the Deployment, and returns a new pod.
func (d *demo) labelAndRestart(ctx context.Context) (pod, error) {
	if err := d.runAndShow(ctx, "kubectl", "label", "namespace", edgeNamespace, "isthmus.dev/injection=enabled"); err != nil {
		return nil, err
	}
	if err := d.runAndShow(ctx, "kubectl", "--namespace", edgeNamespace, "rollout", "restart", "deployment", edgeName); err != nil {
		return nil, err
	}
	found, err := d.waitForEdgePod(ctx, ",isthmus.dev/injected")
	if err != nil {
		return nil, fmt.Errorf("%w; the webhook's log ends with\n%s", err, d.logTail(webhookName))
	}
	if err := d.listPods(ctx); err != nil {
		return nil, err
	}
	d.screen.printf("(Pending: there is no node. On a node, the new pod becomes ready and replaces the old ones.)")
	return found, nil
}

// waitForEdgePod waits for a pod of the edge, which also matches the selector in label.
func (d *demo) waitForEdgePod(ctx context.Context, label string) (pod, error) {
	var found pod
	err := waitFor(ctx, 30*time.Second, func() error {
		out, err := d.run(ctx, "kubectl", "--namespace", edgeNamespace, "get", "pods", "--selector", edgeLabel+label, "--output", "json")
		if err != nil {
			return err
		}
		pods, err := parsePods(out)
		if err != nil {
			return err
		}
		if len(pods) == 0 {
			return fmt.Errorf("no pod with label %s%s appeared in namespace %s", edgeLabel, label, edgeNamespace)
		}
		found = pods[0]
		return nil
	})
	return found, err
}

func (d *demo) listPods(ctx context.Context) error {
	return d.runAndShow(ctx, "kubectl", "--namespace", edgeNamespace, "get", "pods", "--label-columns", "isthmus.dev/injected")
}

// showDenialAndWarning shows the webhook's answers to an invalid pod and to a misspelt
// key.
func (d *demo) showDenialAndWarning(ctx context.Context) error {
	if err := d.runAndShow(ctx, "kubectl", "apply", "-f", "samples/pods/wrong-mode.yaml"); err == nil {
		return errors.New("a pod with an unknown mode was admitted")
	} else if ctx.Err() != nil {
		return err
	}
	return d.runAndShow(ctx, "kubectl", "apply", "--dry-run=server", "-f", "samples/pods/misspelt-key.yaml")
}
