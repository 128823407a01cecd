package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// apiServerAddress is the cluster IP of the Service kubernetes.
const apiServerAddress = "10.96.0.1"

// proxy does the work of kube-proxy and of a load balancer: it listens on the addresses
// of Services and forwards connections to ready endpoints.
type proxy struct {
	client    kubernetes.Interface
	apiServer string
	services  corelisters.ServiceLister
	slices    discoverylisters.EndpointSliceLister

	mu            sync.Mutex
	listeners     map[string]net.Listener // by host:port
	loadBalancers int
}

func newProxy(client kubernetes.Interface, apiServer string) *proxy {
	return &proxy{client: client, apiServer: apiServer, listeners: map[string]net.Listener{}}
}

func (p *proxy) start(ctx context.Context) error {
	factory := informers.NewSharedInformerFactory(p.client, 0)
	services, endpoints := factory.Core().V1().Services(), factory.Discovery().V1().EndpointSlices()
	p.services, p.slices = services.Lister(), endpoints.Lister()
	_, err := services.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { p.syncListeners(ctx) },
		UpdateFunc: func(any, any) { p.syncListeners(ctx) },
		DeleteFunc: func(any) { p.syncListeners(ctx) },
	})
	if err != nil {
		return err
	}
	endpoints.Informer()
	factory.Start(ctx.Done())
	for kind, ok := range factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			return fmt.Errorf("watch %s", kind)
		}
	}
	return nil
}

// syncListeners opens and closes listeners so that there is one for each port of each
// Service.
func (p *proxy) syncListeners(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all, err := p.services.List(labels.Everything())
	if err != nil {
		log.Print(err)
		return
	}
	wanted := map[string]bool{}
	for _, s := range all {
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone {
			continue
		}
		hosts := []string{s.Spec.ClusterIP}
		if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
			hosts = append(hosts, p.loadBalancerIPs(ctx, s)...)
		}
		for _, host := range hosts {
			for _, port := range s.Spec.Ports {
				if port.Protocol == corev1.ProtocolTCP {
					address := net.JoinHostPort(host, strconv.Itoa(int(port.Port)))
					wanted[address] = true
					p.listen(address, s.Namespace, s.Name, port.Name)
				}
			}
		}
	}
	for address, l := range p.listeners {
		if !wanted[address] {
			_ = l.Close()
			delete(p.listeners, address)
		}
	}
}

// loadBalancerIPs returns the load balancer addresses of a Service. If it has none, it
// assigns one; the update of the Service then calls syncListeners again.
func (p *proxy) loadBalancerIPs(ctx context.Context, s *corev1.Service) []string {
	var hosts []string
	for _, i := range s.Status.LoadBalancer.Ingress {
		hosts = append(hosts, i.IP)
	}
	if len(hosts) > 0 {
		return hosts
	}
	p.loadBalancers++
	s = s.DeepCopy()
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: fmt.Sprintf("10.97.0.%d", p.loadBalancers)}}
	if _, err := p.client.CoreV1().Services(s.Namespace).UpdateStatus(ctx, s, metav1.UpdateOptions{}); err != nil {
		log.Printf("load balancer of %s/%s: %v", s.Namespace, s.Name, err)
	}
	return nil
}

func (p *proxy) listen(address, namespace, name, port string) {
	if p.listeners[address] != nil {
		return
	}
	l, err := net.Listen("tcp4", address)
	if err != nil {
		log.Printf("service %s/%s: %v", namespace, name, err)
		return
	}
	p.listeners[address] = l
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go p.forward(in, namespace, name, port)
		}
	}()
}

// forward connects a client with an endpoint. It closes the connection if no endpoint is
// ready.
func (p *proxy) forward(in net.Conn, namespace, name, port string) {
	defer func() { _ = in.Close() }()
	target, err := p.chooseEndpoint(namespace, name, port)
	if err != nil {
		return
	}
	out, err := net.DialTimeout("tcp4", target, 5*time.Second)
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			if c, ok := pair[0].(*net.TCPConn); ok {
				_ = c.CloseWrite()
			}
		})
	}
	both.Wait()
}

// chooseEndpoint returns the address of a random ready endpoint.
func (p *proxy) chooseEndpoint(namespace, name, port string) (string, error) {
	if namespace == metav1.NamespaceDefault && name == "kubernetes" {
		return p.apiServer, nil
	}
	all, err := p.slices.EndpointSlices(namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: name}))
	if err != nil {
		return "", err
	}
	var found []string
	for _, s := range all {
		for _, slicePort := range s.Ports {
			if slicePort.Port == nil || slicePort.Name == nil || *slicePort.Name != port {
				continue
			}
			for _, e := range s.Endpoints {
				if e.Conditions.Ready == nil || *e.Conditions.Ready {
					found = append(found, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*slicePort.Port))))
				}
			}
		}
	}
	if len(found) == 0 {
		return "", errors.New("no ready endpoint")
	}
	return found[rand.IntN(len(found))], nil
}
