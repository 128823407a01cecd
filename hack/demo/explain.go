package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	udiff "github.com/aymanbagabas/go-udiff"
)

// explainInjection shows the difference of the pod before and after, and the reason as
// the pod's status, the webhook's log and its metric give it.
func (d *demo) explainInjection(ctx context.Context, before, after pod) error {
	original, err := before.normalized()
	if err != nil {
		return err
	}
	injected, err := after.normalized()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.path("pods"), 0o755); err != nil {
		return err
	}
	for name, content := range map[string]string{"before.yaml": original, "after.yaml": injected} {
		if err := os.WriteFile(d.path("pods", name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	d.screen.diff(udiff.Unified("pod without the label\t"+before.name(), "pod with the label\t"+after.name(), original, injected))
	d.screen.printf("")
	reasons, err := describeStatus(after)
	if err != nil {
		return err
	}
	d.screen.printf("Reasons:\n%s", reasons)
	d.screen.printf("")
	logged, err := d.findReview(after)
	if err != nil {
		return err
	}
	d.screen.printf("The webhook's log:\n%s", logged)
	d.screen.printf("")
	d.screen.printf("Its metric:\n  %s", d.admissionMetric(ctx))
	return nil
}

// describeStatus puts the pod's status annotation into sentences.
func describeStatus(p pod) (string, error) {
	var status struct {
		Mode, Profile, Delivery, Container, CertDir string
		Warnings                                    []string
	}
	if err := json.Unmarshal([]byte(p.text("metadata", "annotations", "isthmus.dev/status")), &status); err != nil {
		return "", fmt.Errorf("status of pod %s: %w", p.name(), err)
	}
	text := fmt.Sprintf("  namespace %s is labelled isthmus.dev/injection=enabled, and the pod does not opt out\n"+
		"  profile %s recognises container %s (%s) as an edge\n"+
		"  mode %s, delivery %s: the edge reads its certificate in %s\n"+
		"  its identity will be spiffe://%s/ns/%s/sa/%s",
		p.text("metadata", "namespace"), status.Profile, status.Container, p.image(status.Container),
		status.Mode, status.Delivery, status.CertDir,
		p.env("istio-proxy", "TRUST_DOMAIN"), p.text("metadata", "namespace"), p.text("spec", "serviceAccountName"))
	if len(status.Warnings) > 0 {
		text += "\n  warnings: " + strings.Join(status.Warnings, ", ") + " (see docs/troubleshooting.md)"
	}
	return text, nil
}

// reviewLog is a line of the webhook's log about a review.
type reviewLog struct {
	Message   string   `json:"msg"`
	Namespace string   `json:"namespace"`
	Pod       string   `json:"pod"`
	Outcome   string   `json:"outcome"`
	Reason    string   `json:"reason"`
	Profile   string   `json:"profile"`
	Mode      string   `json:"mode"`
	Warnings  []string `json:"warnings"`
}

// findReview returns the review of a pod from the webhook's log. At the time of the
// review the pod had no name yet, only the generateName that its name begins with.
func (d *demo) findReview(p pod) (string, error) {
	log, err := os.Open(d.path(webhookName + ".log"))
	if err != nil {
		return "", err
	}
	defer func() { _ = log.Close() }()
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r reviewLog
		if json.Unmarshal(lines.Bytes(), &r) != nil || r.Message != "reviewed pod" || !strings.HasPrefix(p.name(), r.Pod) {
			continue
		}
		warnings := "none"
		if len(r.Warnings) > 0 {
			warnings = strings.Join(r.Warnings, ", ")
		}
		return fmt.Sprintf("  namespace %s, pod %s: %s, reason %s, profile %s, mode %s, warnings %s",
			r.Namespace, r.Pod, r.Outcome, r.Reason, r.Profile, r.Mode, warnings), lines.Err()
	}
	return "", fmt.Errorf("the webhook's log has no review of pod %s", p.name())
}

// admissionMetric returns the lines of the webhook's admission metric.
func (d *demo) admissionMetric(ctx context.Context) string {
	return d.metricLines(ctx, webhookName, "isthmus_admission_total")
}

// metricLines returns the lines of a process's metrics that begin with prefix.
func (d *demo) metricLines(ctx context.Context, name, prefix string) string {
	page, err := httpGet(ctx, fmt.Sprintf("http://127.0.0.1:%d/metrics", d.readDaemon(name).Metrics))
	if err != nil {
		return err.Error()
	}
	var found []string
	for line := range strings.SplitSeq(page, "\n") {
		if strings.HasPrefix(line, prefix) {
			found = append(found, line)
		}
	}
	if len(found) == 0 {
		return prefix + " has no value yet"
	}
	return strings.Join(found, "\n  ")
}

// printHints prints commands to try.
func (d *demo) printHints() {
	d.screen.println(fmt.Sprintf(`
Commands to try in this folder:

  export KUBECONFIG=%s
  export PATH=%s:$PATH

  kubectl -n emissary get pods -L isthmus.dev/injected
  kubectl apply -f samples/pods/opt-out.yaml        # a pod that opts out: it is not changed
  kubectl apply -f samples/pods/opt-in.yaml         # a pod that opts in, without a label on its namespace
  kubectl apply -f samples/pods/wrong-mode.yaml     # an unknown mode: denied, with the reason
  isthmus inject -f samples/emissary/deployment.yaml -o diff   # the same engine, offline
  kubectl -n emissary describe secret istio-certs   # never shows the key
  kubectl -n emissary events --for secret/istio-certs
  less +F %s
  less +F %s

  make demo-down                                    # stops the demo`, d.kubeconfig(), d.path("bin"), d.path(webhookName+".log"), d.path(controllerName+".log")))
}
